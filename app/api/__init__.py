"""The HTTP API: its routes, and what stands between them and the network. `app.http.app.create_app` joins them."""
