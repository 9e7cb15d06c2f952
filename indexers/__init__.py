"""From sources to items to vectors to a backend, resumably."""
