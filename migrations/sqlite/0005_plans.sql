DROP INDEX `deliveries_open`;--> statement-breakpoint
DROP INDEX `deliveries_progress`;--> statement-breakpoint
CREATE INDEX `deliveries_open` ON `deliveries` (`created_at`) WHERE state = 'pending' and created_at > 0;--> statement-breakpoint
CREATE INDEX `deliveries_progress` ON `deliveries` (`task_id`) WHERE event_type = 'task.progress' and state || '' = 'pending';