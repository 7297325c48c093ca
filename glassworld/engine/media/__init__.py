"""Start images in, videos out."""
