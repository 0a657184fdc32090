CREATE TABLE `attempts` (
	`delivery_id` text NOT NULL,
	`fence` integer NOT NULL,
	`started_at` integer NOT NULL,
	`duration_ms` integer NOT NULL,
	`outcome` text NOT NULL,
	`http_status` integer,
	`error` text,
	`timings` text NOT NULL,
	`key_id` text,
	`retry_after_seconds` integer,
	`response_headers` text NOT NULL,
	`response_excerpt` text,
	`remote_address` text,
	PRIMARY KEY(`delivery_id`, `fence`)
);
--> statement-breakpoint
CREATE TABLE `clients` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`status` text NOT NULL,
	`seq` integer NOT NULL,
	`created_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `deliveries` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`lane_id` text NOT NULL,
	`state` text NOT NULL,
	`line` integer NOT NULL,
	`rank` integer NOT NULL,
	`due_at` integer NOT NULL,
	`tries` integer NOT NULL,
	`max_tries` integer NOT NULL,
	`fence` integer NOT NULL,
	`leased_until` integer,
	`leased_by` text,
	`event_id` text NOT NULL,
	`event_type` text NOT NULL,
	`task_id` text,
	`endpoint_id` text NOT NULL,
	`url` text,
	`body` text,
	`retry_schedule` text,
	`trigger` text NOT NULL,
	`retry_after_at` integer,
	`canceled_reason` text,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`finished_at` integer
);
--> statement-breakpoint
CREATE INDEX `deliveries_pending` ON `deliveries` (`lane_id`,`line`,`rank`,`id`) WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX `deliveries_running` ON `deliveries` (`lane_id`,`leased_until`) WHERE state = 'running';--> statement-breakpoint
CREATE INDEX `deliveries_client` ON `deliveries` (`client_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `deliveries_endpoint` ON `deliveries` (`endpoint_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `deliveries_task` ON `deliveries` (`task_id`);--> statement-breakpoint
CREATE TABLE `endpoints` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`url` text NOT NULL,
	`description` text NOT NULL,
	`events` text NOT NULL,
	`task_types` text NOT NULL,
	`follows` integer NOT NULL,
	`headers` text,
	`header_names` text NOT NULL,
	`format` text NOT NULL,
	`payload` text NOT NULL,
	`max_per_minute` integer,
	`max_in_flight` integer NOT NULL,
	`retry_schedule` text,
	`secret` text NOT NULL,
	`secret_hint` text NOT NULL,
	`previous_secret` text,
	`previous_secret_until` integer,
	`verification` text NOT NULL,
	`verified_at` integer,
	`verification_error` text,
	`verification_expires_at` integer,
	`paused_at` integer,
	`disabled_at` integer,
	`disabled_reason` text,
	`failing_since` integer,
	`last_success_at` integer,
	`deleted_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`revision` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `endpoints_url` ON `endpoints` (`client_id`,`url`) WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX `endpoints_client` ON `endpoints` (`client_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `endpoints_follows` ON `endpoints` (`client_id`) WHERE follows = 1;--> statement-breakpoint
CREATE TABLE `events` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`task_id` text,
	`endpoint_id` text,
	`type` text NOT NULL,
	`terminal` integer NOT NULL,
	`generation` integer NOT NULL,
	`revision` integer NOT NULL,
	`seq` integer NOT NULL,
	`body` text NOT NULL,
	`created_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `events_terminal` ON `events` (`task_id`,`generation`) WHERE terminal = 1;--> statement-breakpoint
CREATE UNIQUE INDEX `events_feed` ON `events` (`client_id`,`seq`);--> statement-breakpoint
CREATE INDEX `events_task` ON `events` (`task_id`) WHERE terminal = 0;--> statement-breakpoint
CREATE TABLE `idempotency` (
	`client_id` text NOT NULL,
	`scope` text NOT NULL,
	`key` text NOT NULL,
	`fingerprint` text NOT NULL,
	`task_ids` text NOT NULL,
	`expires_at` integer NOT NULL,
	PRIMARY KEY(`client_id`, `scope`, `key`)
);
--> statement-breakpoint
CREATE INDEX `idempotency_expiry` ON `idempotency` (`expires_at`);--> statement-breakpoint
CREATE TABLE `keys` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text,
	`name` text NOT NULL,
	`hash` text NOT NULL,
	`hint` text NOT NULL,
	`scopes` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer,
	`revoked_at` integer,
	`last_used_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `keys_hash` ON `keys` (`hash`);--> statement-breakpoint
CREATE INDEX `keys_client` ON `keys` (`client_id`);--> statement-breakpoint
CREATE TABLE `labels` (
	`client_id` text NOT NULL,
	`name` text NOT NULL,
	`value` text NOT NULL,
	`created_at` integer NOT NULL,
	`task_id` text NOT NULL,
	PRIMARY KEY(`client_id`, `name`, `value`, `created_at`, `task_id`)
);
--> statement-breakpoint
CREATE INDEX `labels_task` ON `labels` (`task_id`);--> statement-breakpoint
CREATE TABLE `lanes` (
	`id` text PRIMARY KEY NOT NULL,
	`cap` integer,
	`pace_ms` integer,
	`paced_at` integer NOT NULL,
	`held_until` integer NOT NULL,
	`filled` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `queues` (
	`id` text PRIMARY KEY NOT NULL
);
--> statement-breakpoint
CREATE TABLE `settings` (
	`name` text PRIMARY KEY NOT NULL,
	`value` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `signing_keys` (
	`id` text PRIMARY KEY NOT NULL,
	`state` text NOT NULL,
	`alg` text NOT NULL,
	`public_jwk` text NOT NULL,
	`private_jwk` text NOT NULL,
	`created_at` integer NOT NULL,
	`published_at` integer NOT NULL,
	`activated_at` integer,
	`retired_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `signing_keys_slot` ON `signing_keys` (`state`) WHERE state in ('active', 'next');--> statement-breakpoint
CREATE TABLE `tasks` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`lane_id` text NOT NULL,
	`state` text NOT NULL,
	`line` integer NOT NULL,
	`rank` integer NOT NULL,
	`due_at` integer NOT NULL,
	`tries` integer NOT NULL,
	`max_tries` integer NOT NULL,
	`fence` integer NOT NULL,
	`leased_until` integer,
	`leased_by` text,
	`type` text NOT NULL,
	`generation` integer NOT NULL,
	`revision` integer NOT NULL,
	`input` text NOT NULL,
	`result` text,
	`error` text,
	`last_error` text,
	`progress` real NOT NULL,
	`progress_message` text,
	`metadata` text NOT NULL,
	`priority` integer NOT NULL,
	`concurrency_key` text,
	`callback` text,
	`batch_id` text,
	`schedule_id` text,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`started_at` integer,
	`finished_at` integer,
	`start_by` integer,
	`deadline_at` integer,
	`timeout_seconds` integer NOT NULL,
	`cancel_requested_at` integer,
	`expires_at` integer,
	`traceparent` text,
	`tracestate` text
);
--> statement-breakpoint
CREATE INDEX `tasks_pending` ON `tasks` (`lane_id`,`line`,`rank`,`id`) WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX `tasks_running` ON `tasks` (`lane_id`,`leased_until`) WHERE state = 'running';--> statement-breakpoint
CREATE INDEX `tasks_client` ON `tasks` (`client_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `tasks_batch` ON `tasks` (`batch_id`) WHERE batch_id is not null;--> statement-breakpoint
CREATE INDEX `tasks_overdue` ON `tasks` (`start_by`) WHERE state = 'pending' and start_by is not null;--> statement-breakpoint
CREATE INDEX `tasks_deadline` ON `tasks` (`deadline_at`) WHERE state in ('pending', 'running') and deadline_at is not null;--> statement-breakpoint
CREATE TABLE `tombstones` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`expires_at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `tombstones_expiry` ON `tombstones` (`expires_at`);--> statement-breakpoint
CREATE TABLE `turns` (
	`seq` integer PRIMARY KEY NOT NULL,
	`queue` text NOT NULL,
	`client_id` text NOT NULL,
	`lane_id` text NOT NULL,
	`turn` integer,
	`alarm_at` integer
);
--> statement-breakpoint
CREATE INDEX `turns_line` ON `turns` (`queue`,`client_id`,`turn`,`seq`) WHERE turn is not null;--> statement-breakpoint
CREATE INDEX `turns_alarm` ON `turns` (`alarm_at`) WHERE alarm_at is not null;--> statement-breakpoint
CREATE INDEX `turns_lane` ON `turns` (`lane_id`);