"""What makes agents run: engines, scheduler, ledger, command line."""
