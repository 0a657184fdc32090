ALTER TABLE "endpoints" ADD COLUMN "allowed_rate" integer;--> statement-breakpoint
ALTER TABLE "endpoints" ADD COLUMN "first_verified_at" bigint;--> statement-breakpoint
ALTER TABLE "endpoints" ADD COLUMN "verification_delivery_id" text;--> statement-breakpoint
ALTER TABLE "endpoints" ADD COLUMN "failing_told_at" bigint;--> statement-breakpoint
ALTER TABLE "lanes" ADD COLUMN "window_size" integer;--> statement-breakpoint
ALTER TABLE "lanes" ADD COLUMN "succeeded_at" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "lanes" ADD COLUMN "failures" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "lanes" ADD COLUMN "probe_ms" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "lanes" ADD COLUMN "blocked" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "lanes" ADD COLUMN "blocked_since" bigint;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "wanted_at" bigint;--> statement-breakpoint
ALTER TABLE "tasks" ADD COLUMN "checkpoint" text;--> statement-breakpoint
CREATE INDEX "deliveries_open" ON "deliveries" USING btree ("created_at") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "endpoints_failing" ON "endpoints" USING btree ("failing_since") WHERE failing_since is not null;--> statement-breakpoint
CREATE INDEX "endpoints_unproven" ON "endpoints" USING btree ("created_at") WHERE first_verified_at is null and deleted_at is null;--> statement-breakpoint
UPDATE "lanes" SET "window_size" = 2 WHERE starts_with("id", 'endpoint_');--> statement-breakpoint
UPDATE "endpoints" SET "first_verified_at" = "verified_at";
