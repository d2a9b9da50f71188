"""Where the nodes meet ComfyUI itself: sockets, device and memory, Cancel and previews, folders, batches, models."""
