"""One run's life: session, scheduler, performer, tools, spending, recording."""
