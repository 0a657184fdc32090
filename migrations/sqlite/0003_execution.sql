CREATE TABLE `schedules` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`type` text NOT NULL,
	`cron` text NOT NULL,
	`timezone` text NOT NULL,
	`catch_up` text NOT NULL,
	`template` text NOT NULL,
	`paused_at` integer,
	`next_at` integer,
	`last_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`revision` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `schedules_due` ON `schedules` (`next_at`) WHERE next_at is not null and paused_at is null;--> statement-breakpoint
CREATE INDEX `schedules_client` ON `schedules` (`client_id`,`created_at`,`id`);--> statement-breakpoint
ALTER TABLE `keys` ADD `task_types` text;--> statement-breakpoint
ALTER TABLE `queues` ADD `paused_at` integer;--> statement-breakpoint
ALTER TABLE `queues` ADD `worker_seen_at` integer;