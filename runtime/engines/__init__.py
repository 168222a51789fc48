"""Where tokens come from: the Engine protocol and the engines that keep it."""
