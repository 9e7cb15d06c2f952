"""``python -m app`` is the ``sightline`` command."""

from app.cli import main

raise SystemExit(main())
