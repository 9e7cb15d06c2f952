"""``python -m app`` is the ``sightline`` command."""

from app.cli.main import main

raise SystemExit(main())
