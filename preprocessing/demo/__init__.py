"""How the demo photos are drawn."""
