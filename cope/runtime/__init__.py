"""What any long-running program needs: devices, ranks, processes, interruptions, safe files, progress."""
