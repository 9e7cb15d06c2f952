"""How well a chat answers, from answer keys and source ids alone: `python -m benchmarks.chat`."""
