"""The dashboard: pages rendered here, a few lines of script that keep them up to date."""
