CREATE TABLE "attempts" (
	"delivery_id" text NOT NULL,
	"fence" integer NOT NULL,
	"started_at" bigint NOT NULL,
	"duration_ms" bigint NOT NULL,
	"outcome" text NOT NULL,
	"http_status" integer,
	"error" text,
	"timings" text NOT NULL,
	"key_id" text,
	"retry_after_seconds" bigint,
	"response_headers" text NOT NULL,
	"response_excerpt" text,
	"remote_address" text,
	CONSTRAINT "attempts_delivery_id_fence_pk" PRIMARY KEY("delivery_id","fence")
);
--> statement-breakpoint
CREATE TABLE "clients" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"status" text NOT NULL,
	"seq" bigint NOT NULL,
	"created_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "deliveries" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text NOT NULL,
	"lane_id" text NOT NULL,
	"state" text NOT NULL,
	"line" integer NOT NULL,
	"rank" bigint NOT NULL,
	"due_at" bigint NOT NULL,
	"tries" integer NOT NULL,
	"max_tries" integer NOT NULL,
	"fence" integer NOT NULL,
	"leased_until" bigint,
	"leased_by" text,
	"event_id" text NOT NULL,
	"event_type" text NOT NULL,
	"task_id" text,
	"endpoint_id" text NOT NULL,
	"url" text,
	"body" text,
	"retry_schedule" text,
	"trigger" text NOT NULL,
	"retry_after_at" bigint,
	"canceled_reason" text,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"finished_at" bigint
);
--> statement-breakpoint
CREATE TABLE "endpoints" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text NOT NULL,
	"url" text NOT NULL,
	"description" text NOT NULL,
	"events" text NOT NULL,
	"task_types" text NOT NULL,
	"follows" integer NOT NULL,
	"headers" text,
	"header_names" text NOT NULL,
	"format" text NOT NULL,
	"payload" text NOT NULL,
	"max_per_minute" integer,
	"max_in_flight" integer NOT NULL,
	"retry_schedule" text,
	"secret" text NOT NULL,
	"secret_hint" text NOT NULL,
	"previous_secret" text,
	"previous_secret_until" bigint,
	"verification" text NOT NULL,
	"verified_at" bigint,
	"verification_error" text,
	"verification_expires_at" bigint,
	"paused_at" bigint,
	"disabled_at" bigint,
	"disabled_reason" text,
	"failing_since" bigint,
	"last_success_at" bigint,
	"deleted_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"revision" integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE "events" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text NOT NULL,
	"task_id" text,
	"endpoint_id" text,
	"type" text NOT NULL,
	"terminal" integer NOT NULL,
	"generation" integer NOT NULL,
	"revision" integer NOT NULL,
	"seq" bigint NOT NULL,
	"body" text NOT NULL,
	"created_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "idempotency" (
	"client_id" text NOT NULL,
	"scope" text NOT NULL,
	"key" text NOT NULL,
	"fingerprint" text NOT NULL,
	"task_ids" text NOT NULL,
	"expires_at" bigint NOT NULL,
	CONSTRAINT "idempotency_client_id_scope_key_pk" PRIMARY KEY("client_id","scope","key")
);
--> statement-breakpoint
CREATE TABLE "keys" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text,
	"name" text NOT NULL,
	"hash" text NOT NULL,
	"hint" text NOT NULL,
	"scopes" text NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint,
	"revoked_at" bigint,
	"last_used_at" bigint
);
--> statement-breakpoint
CREATE TABLE "labels" (
	"client_id" text NOT NULL,
	"name" text NOT NULL,
	"value" text NOT NULL,
	"created_at" bigint NOT NULL,
	"task_id" text NOT NULL,
	CONSTRAINT "labels_client_id_name_value_created_at_task_id_pk" PRIMARY KEY("client_id","name","value","created_at","task_id")
);
--> statement-breakpoint
CREATE TABLE "lanes" (
	"id" text PRIMARY KEY NOT NULL,
	"cap" integer,
	"pace_ms" bigint,
	"paced_at" bigint NOT NULL,
	"held_until" bigint NOT NULL,
	"filled" integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE "queues" (
	"id" text PRIMARY KEY NOT NULL
);
--> statement-breakpoint
CREATE TABLE "settings" (
	"name" text PRIMARY KEY NOT NULL,
	"value" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "signing_keys" (
	"id" text PRIMARY KEY NOT NULL,
	"state" text NOT NULL,
	"alg" text NOT NULL,
	"public_jwk" text NOT NULL,
	"private_jwk" text NOT NULL,
	"created_at" bigint NOT NULL,
	"published_at" bigint NOT NULL,
	"activated_at" bigint,
	"retired_at" bigint
);
--> statement-breakpoint
CREATE TABLE "tasks" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text NOT NULL,
	"lane_id" text NOT NULL,
	"state" text NOT NULL,
	"line" integer NOT NULL,
	"rank" bigint NOT NULL,
	"due_at" bigint NOT NULL,
	"tries" integer NOT NULL,
	"max_tries" integer NOT NULL,
	"fence" integer NOT NULL,
	"leased_until" bigint,
	"leased_by" text,
	"type" text NOT NULL,
	"generation" integer NOT NULL,
	"revision" integer NOT NULL,
	"input" text NOT NULL,
	"result" text,
	"error" text,
	"last_error" text,
	"progress" double precision NOT NULL,
	"progress_message" text,
	"metadata" text NOT NULL,
	"priority" integer NOT NULL,
	"concurrency_key" text,
	"callback" text,
	"batch_id" text,
	"schedule_id" text,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"started_at" bigint,
	"finished_at" bigint,
	"start_by" bigint,
	"deadline_at" bigint,
	"timeout_seconds" integer NOT NULL,
	"cancel_requested_at" bigint,
	"expires_at" bigint,
	"traceparent" text,
	"tracestate" text
);
--> statement-breakpoint
CREATE TABLE "tombstones" (
	"id" text PRIMARY KEY NOT NULL,
	"client_id" text NOT NULL,
	"expires_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "turns" (
	"seq" bigserial PRIMARY KEY NOT NULL,
	"queue" text NOT NULL,
	"client_id" text NOT NULL,
	"lane_id" text NOT NULL,
	"turn" bigint,
	"alarm_at" bigint
);
--> statement-breakpoint
CREATE INDEX "deliveries_pending" ON "deliveries" USING btree ("lane_id","line","rank","id") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "deliveries_running" ON "deliveries" USING btree ("lane_id","leased_until") WHERE state = 'running';--> statement-breakpoint
CREATE INDEX "deliveries_client" ON "deliveries" USING btree ("client_id","created_at","id");--> statement-breakpoint
CREATE INDEX "deliveries_endpoint" ON "deliveries" USING btree ("endpoint_id","created_at","id");--> statement-breakpoint
CREATE INDEX "deliveries_task" ON "deliveries" USING btree ("task_id");--> statement-breakpoint
CREATE UNIQUE INDEX "endpoints_url" ON "endpoints" USING btree ("client_id","url") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "endpoints_client" ON "endpoints" USING btree ("client_id","created_at","id");--> statement-breakpoint
CREATE INDEX "endpoints_follows" ON "endpoints" USING btree ("client_id") WHERE follows = 1;--> statement-breakpoint
CREATE UNIQUE INDEX "events_terminal" ON "events" USING btree ("task_id","generation") WHERE terminal = 1;--> statement-breakpoint
CREATE UNIQUE INDEX "events_feed" ON "events" USING btree ("client_id","seq");--> statement-breakpoint
CREATE INDEX "events_task" ON "events" USING btree ("task_id") WHERE terminal = 0;--> statement-breakpoint
CREATE INDEX "idempotency_expiry" ON "idempotency" USING btree ("expires_at");--> statement-breakpoint
CREATE UNIQUE INDEX "keys_hash" ON "keys" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "keys_client" ON "keys" USING btree ("client_id");--> statement-breakpoint
CREATE INDEX "labels_task" ON "labels" USING btree ("task_id");--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_slot" ON "signing_keys" USING btree ("state") WHERE state in ('active', 'next');--> statement-breakpoint
CREATE INDEX "tasks_pending" ON "tasks" USING btree ("lane_id","line","rank","id") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "tasks_running" ON "tasks" USING btree ("lane_id","leased_until") WHERE state = 'running';--> statement-breakpoint
CREATE INDEX "tasks_client" ON "tasks" USING btree ("client_id","created_at","id");--> statement-breakpoint
CREATE INDEX "tasks_batch" ON "tasks" USING btree ("batch_id") WHERE batch_id is not null;--> statement-breakpoint
CREATE INDEX "tasks_overdue" ON "tasks" USING btree ("start_by") WHERE state = 'pending' and start_by is not null;--> statement-breakpoint
CREATE INDEX "tasks_deadline" ON "tasks" USING btree ("deadline_at") WHERE state in ('pending', 'running') and deadline_at is not null;--> statement-breakpoint
CREATE INDEX "tombstones_expiry" ON "tombstones" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "turns_line" ON "turns" USING btree ("queue","client_id","turn","seq") WHERE turn is not null;--> statement-breakpoint
CREATE INDEX "turns_alarm" ON "turns" USING btree ("alarm_at") WHERE alarm_at is not null;--> statement-breakpoint
CREATE INDEX "turns_lane" ON "turns" USING btree ("lane_id");