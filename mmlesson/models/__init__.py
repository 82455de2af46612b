"""Where weights come from: the course's own files, the hub, folders of networks, networks of full size."""
