"""``python -m app`` is the ``sightline`` command."""

from app.main import main

raise SystemExit(main())
