ALTER TABLE `endpoints` ADD `allowed_rate` integer;--> statement-breakpoint
ALTER TABLE `endpoints` ADD `first_verified_at` integer;--> statement-breakpoint
ALTER TABLE `endpoints` ADD `verification_delivery_id` text;--> statement-breakpoint
ALTER TABLE `endpoints` ADD `failing_told_at` integer;--> statement-breakpoint
CREATE INDEX `endpoints_failing` ON `endpoints` (`failing_since`) WHERE failing_since is not null;--> statement-breakpoint
CREATE INDEX `endpoints_unproven` ON `endpoints` (`created_at`) WHERE first_verified_at is null and deleted_at is null;--> statement-breakpoint
ALTER TABLE `lanes` ADD `window_size` integer;--> statement-breakpoint
ALTER TABLE `lanes` ADD `succeeded_at` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `lanes` ADD `failures` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `lanes` ADD `probe_ms` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `lanes` ADD `blocked` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `lanes` ADD `blocked_since` integer;--> statement-breakpoint
ALTER TABLE `signing_keys` ADD `wanted_at` integer;--> statement-breakpoint
ALTER TABLE `tasks` ADD `checkpoint` text;--> statement-breakpoint
CREATE INDEX `deliveries_open` ON `deliveries` (`created_at`) WHERE state = 'pending';--> statement-breakpoint
UPDATE `lanes` SET `window_size` = 2 WHERE `id` GLOB 'endpoint_*';--> statement-breakpoint
UPDATE `endpoints` SET `first_verified_at` = `verified_at`;
