CREATE TABLE "schedules" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text NOT NULL,
	"type" text NOT NULL,
	"cron" text NOT NULL,
	"timezone" text NOT NULL,
	"catch_up" text NOT NULL,
	"template" text NOT NULL,
	"paused_at" bigint,
	"next_at" bigint,
	"last_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"revision" integer NOT NULL
);
--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "task_types" text;--> statement-breakpoint
ALTER TABLE "queues" ADD COLUMN "paused_at" bigint;--> statement-breakpoint
ALTER TABLE "queues" ADD COLUMN "worker_seen_at" bigint;--> statement-breakpoint
CREATE INDEX "schedules_due" ON "schedules" USING btree ("next_at") WHERE next_at is not null and paused_at is null;--> statement-breakpoint
CREATE INDEX "schedules_client" ON "schedules" USING btree ("client_id","created_at","id");