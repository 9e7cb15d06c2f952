"""The HTTP API: its routes, and what stands between them and the network. `app.service.create_app` joins them."""
