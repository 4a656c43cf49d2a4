"""Everything about a run on disk: its directory, its record, its costs, its report, and stages that survive being killed."""
