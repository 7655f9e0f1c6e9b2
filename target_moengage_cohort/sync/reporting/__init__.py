"""What a run tells: report, log, metrics, traces and alerts."""
