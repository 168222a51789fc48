"""One thought's life: attempts, decoding through the gate, switches, scoring passes, trail."""
