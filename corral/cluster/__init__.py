"""Workers on other machines: Ray says on which node one starts, and requests go straight to it over HTTP.

Nothing above knows of it but `inference`, by one border. Ray is imported only by `ray_cluster` and `actor`.
"""
