"""Monitoring: exact counts in, calibrated alarms out, and the loop from an alarm to a better champion."""
