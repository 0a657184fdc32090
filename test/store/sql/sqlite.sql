delete from attempts
  where delivery_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

delete from audit_log
  where id in (select x.id
    from audit_log x
    where x.id < ?
    order by x.id limit ? )
  returning id;

delete from deliveries
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

delete from endpoints
  where id in (select e.id
    from endpoints e
    where e.client_id = ? and e.deleted_at is not null limit ?)
  returning id;

delete from events
  where rowid in (select x.rowid
    from events x
    where x.client_id = ? and 1 = 1
    order by x.seq limit ? )
  returning 1 as one;

delete from idempotency
  where rowid in (select x.rowid
    from idempotency x
    where x.client_id = ? and 1 = 1
    order by x.scope, x.key limit ? )
  returning 1 as one;

delete from keys
  where client_id = ?;

delete from keys
  where id in (select x.id
    from keys x
    where coalesce(x.revoked_at, x.expires_at) <= ? - ? limit ? )
  returning id;

delete from labels
  where rowid in (select x.rowid
    from labels x
    where x.client_id = ? and 1 = 1
    order by x.name, x.value, x.created_at, x.task_id limit ? )
  returning 1 as one;

delete from labels
  where task_id = ?;

delete from lanes
  where id = ?;

delete from lanes
  where id >= ? and id < ?;

delete from rate_limits
  where key in (select v.key
    from (select column1 as key
      from (values (?))
      where column1 is not null) v);

delete from schedules
  where client_id = ?;

delete from schedules
  where id = ? and client_id = coalesce(?, client_id)
  returning client_id as "clientId";

delete from tasks
  where id = ? and client_id = coalesce(?, client_id) and state in ('completed', 'failed', 'canceled')
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
      generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
      progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
      concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
      updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
      timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate";

delete from tasks
  where rowid in (select x.rowid
    from tasks x
    where x.client_id = ? and x.state not in ('pending', 'running')
    order by x.created_at, x.id limit ? )
  returning 1 as one;

delete from turns
  where lane_id = ?;

delete from turns
  where seq in (select x.seq
    from turns x
    where x.lane_id in (select v.id
      from (select column1 as id
        from (values (?))
        where column1 is not null) v) limit 5000 );

delete from turns
  where seq in (select x.seq
    from turns x
    where x.seq in (select v.seq
      from (select column1 as seq
        from (values (?))
        where column1 is not null) v) );

delete from turns
  where seq in (select x.seq
    from turns x
    where x.turn is not null and x.lane_id in (select l.id
      from lanes l
      where l.id in (select v.id
        from (select column1 as id
          from (values (?))
          where column1 is not null) v) and (l.filled = 1 or l.held_until > ?)
      order by l.id ) limit 5000 );

insert into attempts (delivery_id, fence, started_at, duration_ms, outcome, http_status, error, timings, key_id, retry_after_seconds,
    response_headers, response_excerpt, remote_address) select delivery_id, fence, started_at, duration_ms, outcome, http_status, error, timings,
    key_id, retry_after_seconds, response_headers, response_excerpt, remote_address
  from (select column1 as delivery_id, column2 as fence, column3 as started_at, column4 as duration_ms, column5 as outcome,
      column6 as http_status, column7 as error, column8 as timings, column9 as key_id, column10 as retry_after_seconds, column11 as response_headers,
      column12 as response_excerpt, column13 as remote_address
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where true
  on conflict (delivery_id, fence) do nothing;

insert into audit_log (id, at, actor, action, target, client_id, details, request_id, remote_address)
  values (?, ?, ?, ?, ?, ?, ?, ?, ?);

insert into clients (id, name, status, seq, created_at)
  values (?, ?, 'active', 0, ?)
  returning id, name, status, created_at as "createdAt";

insert into deliveries (id, lane_id, client_id, endpoint_id, event_id, event_type, task_id, url, body, retry_schedule, trigger, max_tries,
    created_at, state, line, rank, due_at, tries, fence, updated_at, leased_until, leased_by) select id, lane_id, client_id, endpoint_id, event_id,
    event_type, task_id, url, body, retry_schedule, trigger, max_tries, created_at, case when start = 1 then 'running' else 'pending' end, 0,
    created_at, created_at, start, start, created_at, case when start = 1 then ? + ? end, case when start = 1 then ? end
  from (select column1 as id, column2 as lane_id, column3 as client_id, column4 as endpoint_id, column5 as event_id, column6 as event_type,
      column7 as task_id, column8 as url, column9 as body, column10 as retry_schedule, column11 as trigger, column12 as max_tries,
      column13 as created_at, column14 as start
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v;

insert into endpoints (id, client_id, url, description, events, task_types, follows, headers, header_names, format, payload, max_per_minute,
    max_in_flight, retry_schedule, secret, secret_hint, verification, verified_at, first_verified_at, created_at, updated_at, revision) select id,
    client_id, url, description, events, task_types, follows, headers, header_names, format, payload, max_per_minute, max_in_flight,
    retry_schedule, secret, secret_hint, verification, case when ? = 1 then ? else null end, case when ? = 1 then ? else null end, ?, ?, 1
  from (select column1 as id, column2 as client_id, column3 as url, column4 as description, column5 as events, column6 as task_types,
      column7 as follows, column8 as headers, column9 as header_names, column10 as format, column11 as payload, column12 as max_per_minute,
      column13 as max_in_flight, column14 as retry_schedule, column15 as secret, column16 as secret_hint, column17 as verification
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where true
  on conflict (client_id, url)
  where deleted_at is null do nothing
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

insert into events (id, client_id, task_id, endpoint_id, type, terminal, generation, revision, seq, body, created_at) select id, client_id,
    task_id, endpoint_id, type, terminal, generation, revision, seq, body, created_at
  from (select column1 as id, column2 as client_id, column3 as task_id, column4 as endpoint_id, column5 as type, column6 as terminal,
      column7 as generation, column8 as revision, column9 as seq, column10 as body, column11 as created_at
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v;

insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at) select v.client_id, 'lease', v.key, v.fingerprint, '[]',
    ? + ?
  from (select column1 as client_id, column2 as key, column3 as fingerprint
    from (values (?, ?, ?))
    where column1 is not null) v
  where true
  order by v.client_id, v.key
  on conflict (client_id, scope, key) do nothing;

insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at) select v.client_id, v.scope, v.key, v.fingerprint,
    v.task_ids, ? + ?
  from (select column1 as client_id, column2 as scope, column3 as key, column4 as fingerprint, column5 as task_ids
    from (values (?, ?, ?, ?, ?))
    where column1 is not null) v
  where true
  order by v.client_id, v.scope, v.key
  on conflict (client_id, scope, key) do update
  set fingerprint = excluded.fingerprint, task_ids = excluded.task_ids, expires_at = excluded.expires_at
  where idempotency.expires_at <= ?
  returning task_ids as "taskIds";

insert into keys (id, client_id, name, hash, hint, scopes, task_types, expires_at, created_at) select id, client_id, name, hash, hint, scopes,
    task_types, expires_at, ?
  from (select column1 as id, column2 as client_id, column3 as name, column4 as hash, column5 as hint, column6 as scopes, column7 as task_types,
      column8 as expires_at
    from (values (?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where v.client_id is null or (select c.status
    from clients c
    where c.id = v.client_id) in ('active', 'suspended')
  returning id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
      created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt";

insert into labels (client_id, name, value, created_at, task_id) select v.client_id, v.name, v.value, v.created_at, v.task_id
  from (select column1 as client_id, column2 as name, column3 as value, column4 as created_at, column5 as task_id
    from (values (?, ?, ?, ?, ?))
    where column1 is not null) v;

insert into lanes (id, cap, pace_ms, paced_at, held_until, filled, window_size) select v.id, v.cap, v.pace_ms, 0, v.held_until, 0,
    v.window_size
  from (select column1 as id, column2 as cap, column3 as pace_ms, column4 as held_until, column5 as window_size
    from (values (?, ?, ?, ?, ?))
    where column1 is not null) v
  where true
  order by v.id
  on conflict (id) do nothing;

insert into queues (id, paused_at)
  values (?, ?)
  on conflict (id) do update
  set paused_at = coalesce(queues.paused_at, excluded.paused_at)
  returning id, paused_at as "pausedAt", worker_seen_at as "workerSeenAt";

insert into rate_limits (key, points, expire) select v.key, v.points, ? + ?
  from (select column1 as key, column2 as points
    from (values (?, ?))
    where column1 is not null) v
  where true
  order by v.key
  on conflict (key) do update
  set points = case when rate_limits.expire + ? <= excluded.expire then excluded.points else rate_limits.points + excluded.points end,
      expire = case when rate_limits.expire + ? <= excluded.expire then excluded.expire else rate_limits.expire end
  returning key, points, expire, expire - ? as "leftMs";

insert into schedules (id, client_id, type, cron, timezone, catch_up, template, next_at, paused_at, created_at, updated_at,
    revision) select id, client_id, type, cron, timezone, catch_up, template, next_at, case when ? = 1 then ? else null end, ?, ?, 1
  from (select column1 as id, column2 as client_id, column3 as type, column4 as cron, column5 as timezone, column6 as catch_up,
      column7 as template, column8 as next_at
    from (values (?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

insert into settings (name, value)
  values (?, ?)
  on conflict (name) do nothing;

insert into signing_keys (id, state, alg, public_jwk, private_jwk, created_at, published_at, activated_at, retired_at, wanted_at) select id,
    state, alg, public_jwk, private_jwk, created_at, published_at, activated_at, retired_at, wanted_at
  from (select column1 as id, column2 as state, column3 as alg, column4 as public_jwk, column5 as private_jwk, column6 as created_at,
      column7 as published_at, column8 as activated_at, column9 as retired_at, column10 as wanted_at
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where true
  order by v.state
  on conflict do nothing;

insert into tasks (id, client_id, lane_id, type, input, metadata, callback, start_by, deadline_at, timeout_seconds, max_tries, priority,
    concurrency_key, batch_id, schedule_id, traceparent, tracestate, state, line, rank, due_at, tries, fence, generation, revision, progress,
    created_at, updated_at, leased_until, leased_by, started_at) select v.id, v.client_id, v.lane_id, v.type, v.input, v.metadata, v.callback,
    v.start_by, v.deadline_at, v.timeout_seconds, v.max_tries, v.priority, v.concurrency_key, v.batch_id, v.schedule_id, v.traceparent,
    v.tracestate, case when v.start = 1 then 'running' else 'pending' end, case when v.due is null then 0 else 1 end, coalesce(v.due,
    n.at - v.priority * 1000), coalesce(v.due, n.at), v.start, v.start, 1, 1 + v.start, 0, n.at, n.at, case when v.start = 1 then n.at + ? end,
    case when v.start = 1 then ? end, case when v.start = 1 then n.at end
  from (select column1 as id, column2 as client_id, column3 as lane_id, column4 as type, column5 as input, column6 as metadata,
      column7 as callback, column8 as start, column9 as due, column10 as start_by, column11 as deadline_at, column12 as timeout_seconds,
      column13 as max_tries, column14 as priority, column15 as concurrency_key, column16 as batch_id, column17 as schedule_id,
      column18 as traceparent, column19 as tracestate
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v cross join (select ? as at) n
  returning id, due_at as "dueAt", rank, created_at as "createdAt";

insert into tombstones (id, client_id, expires_at)
  values (?, ?, ? + ?);

insert into turns (queue, client_id, lane_id, turn, alarm_at) select v.queue, v.client_id, v.lane_id, v.turn, v.alarm_at
  from (select column1 as queue, column2 as client_id, column3 as lane_id, column4 as turn, column5 as alarm_at
    from (values (?, ?, ?, ?, ?))
    where column1 is not null) v;

select 1;

select ? as now;

select at, id
  from audit_log
  where id < ?
  order by id desc limit 1 offset ?;

select at, id
  from audit_log
  where true
  order by id desc limit 1 offset ?;

select count(*) as n
  from keys
  where client_id = ? and revoked_at is null and (expires_at is null or expires_at > ?);

select count(*) as n
  from schedules
  where client_id = ?;

select count(*) as n
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > (?, ?, ?, ?);

select count(*) as n
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > (?, ?, ?, ?) and lane_id < ?;

select count(*) as n
  from tasks
  where state = 'running' and lane_id >= ? and lane_id < ?;

select count(*) as n
  from tasks
  where state = 'running' and true;

select created_at as at, id
  from deliveries
  where client_id = ?
  order by created_at desc, id desc limit 1 offset ?;

select created_at as at, id
  from deliveries
  where client_id = ? and (created_at, id) < (?, ?)
  order by created_at desc, id desc limit 1 offset ?;

select created_at as at, id
  from deliveries
  where client_id || '' = ? and endpoint_id = ?
  order by created_at desc, id desc limit 1 offset ?;

select created_at as at, id
  from deliveries
  where client_id || '' = ? and endpoint_id = ? and (created_at, id) < (?, ?)
  order by created_at desc, id desc limit 1 offset ?;

select created_at as at, id
  from deliveries
  where client_id || '' = ? and task_id = ?
  order by created_at desc, id desc limit 1 offset ?;

select created_at as at, id
  from deliveries
  where client_id || '' = ? and task_id = ? and (created_at, id) < (?, ?)
  order by created_at desc, id desc limit 1 offset ?;

select created_at as at, id
  from deliveries
  where endpoint_id = ?
  order by created_at desc, id desc limit 1 offset ?;

select delivery_id as "deliveryId", fence as "fence", started_at as "startedAt", duration_ms as "durationMs", outcome as "outcome",
    http_status as "httpStatus", error as "error", timings as "timings", key_id as "keyId", retry_after_seconds as "retryAfterSeconds",
    response_headers as "responseHeaders", response_excerpt as "responseExcerpt", remote_address as "remoteAddress"
  from attempts
  where delivery_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v)
  order by delivery_id, fence;

select distinct client_id as id
  from endpoints
  where client_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and follows = 1;

select distinct w.task_id as id
  from deliveries w
  where w.client_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and w.created_at > ? and w.event_type = 'task.progress' and w.trigger = 'event' and coalesce(w.task_id,
          '') in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

select e.id as id, e.body as body, t.traceparent as traceparent, t.tracestate as tracestate
  from events e left join tasks t on t.id = e.task_id
  where e.id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

select e.task_id as "taskId", e.body as body
  from (select column1 as id, column2 as generation
    from (values (?, ?))
    where column1 is not null) v join events e on e.task_id = v.id and e.generation = v.generation and e.terminal = 1
  where e.body <> '';

select exists (select 1
    from tasks
    where client_id = ?) or exists (select 1
    from deliveries
    where client_id = ?) or exists (select 1
    from endpoints
    where client_id = ?) or exists (select 1
    from events
    where client_id = ?) or exists (select 1
    from labels
    where client_id = ?) or exists (select 1
    from idempotency
    where client_id = ?) or exists (select 1
    from schedules
    where client_id = ?) or exists (select 1
    from keys
    where client_id = ?) as rest;

select fingerprint, task_ids as "taskIds"
  from idempotency
  where client_id = ? and scope = ? and key = ? and expires_at > ?;

select id
  from clients
  where id = ?;

select id
  from clients
  where status = 'deleted' and id > ?
  order by id limit 1;

select id
  from deliveries
  where client_id = ? and state <> 'running'
  order by created_at, id limit ?;

select id
  from deliveries
  where client_id = ? limit 1;

select id
  from endpoints
  where client_id = ? and deleted_at is null
  order by created_at, id limit ?;

select id
  from tasks
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v)
  order by id;

select id
  from tombstones
  where id = ? and client_id = coalesce(?, client_id) and expires_at > ?;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where client_id = ?
    order by id desc limit ?) scanned
  where true
  order by id desc limit ?;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where id < ?
    order by id desc limit ?) scanned
  where actor = ?
  order by id desc limit ?;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where id >= ?
    order by id desc limit ?) scanned
  where true
  order by id desc limit ?;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where true
    order by id desc limit ?) scanned
  where action = ?
  order by id desc limit ?;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where true
    order by id desc limit ?) scanned
  where actor = ?
  order by id desc limit ?;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where true
    order by id desc limit ?) scanned
  where true
  order by id desc limit ?;

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
    event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
    trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
    updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id = ? and client_id = coalesce(?, client_id);

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
    event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
    trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
    updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where state = 'running' and (leased_until <= ? or leased_by <> coalesce(?, leased_by) and leased_by not like 'worker:%' ) limit ?;

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id = ? and (state = 'completed' and fence = ? and 'complete' = ? or exists (select 1
      from idempotency i
      where i.client_id = tasks.client_id and i.scope = 'lease' and i.key = ? and i.fingerprint = ? and i.expires_at > ?));

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id = ? and client_id = coalesce(?, client_id);

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id in ( select id
    from (select id
      from tasks
      where state = 'pending' and start_by is not null and start_by <= ? and fence = 0
      order by start_by limit ?) a union select id
    from (select id
      from tasks
      where state in ('pending', 'running') and deadline_at is not null and deadline_at <= ? and (state = 'pending' or deadline_at <= ?)
      order by deadline_at limit ?) b union select id
    from (select id
      from tasks
      where state = 'running' and cancel_requested_at <= ? limit ?) c);

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where state = 'running' and (leased_until <= ? or leased_by <> coalesce(?,
      leased_by) and leased_by not like 'worker:%' or leased_by like 'worker:%' and (started_at + timeout_seconds * 1000 <= ? or deadline_at <= ?)) limit ?;

select id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
    created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt"
  from keys
  where client_id is ?
  order by created_at, id;

select id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
    created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt"
  from keys
  where id = ? and client_id is ? and revoked_at is null and (expires_at is null or expires_at > ?);

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > ? and body <> '' and client_id = ?
  order by client_id, seq limit ?;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > ? and body <> '' and client_id = ? and type in (?)
  order by client_id, seq limit ?;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > ? and body <> '' and client_id || '' = ? and id in (select e.id
    from events e
    where e.task_id = ? and e.terminal = 1
    union all select e.id
    from events e
    where e.task_id = ? and e.terminal = 0)
  order by client_id, seq limit ?;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > ? and body <> '' and seq <= ? and client_id = ? and type in (?)
  order by client_id, seq limit ?;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where client_id = ? and (created_at, id) > (?, ?)
  order by created_at, id limit ?;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where client_id = ? and true
  order by created_at, id limit ?;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where id = ? and client_id = coalesce(?, client_id);

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where true and true
  order by created_at, id limit ?;

select id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
    follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
    max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
    secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
    verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
    verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
    verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
    failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
    created_at as "createdAt", updated_at as "updatedAt", revision as "revision"
  from endpoints
  where client_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and deleted_at is null;

select id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
    follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
    max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
    secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
    verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
    verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
    verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
    failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
    created_at as "createdAt", updated_at as "updatedAt", revision as "revision"
  from endpoints
  where deleted_at is null and client_id = ?
  order by created_at, id limit ?;

select id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
    follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
    max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
    secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
    verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
    verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
    verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
    failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
    created_at as "createdAt", updated_at as "updatedAt", revision as "revision"
  from endpoints
  where deleted_at is null and client_id = ? and (created_at, id) > (?, ?)
  order by created_at, id limit ?;

select id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
    follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
    max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
    secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
    verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
    verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
    verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
    failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
    created_at as "createdAt", updated_at as "updatedAt", revision as "revision"
  from endpoints
  where id = ? and client_id = coalesce(?, client_id) and coalesce(deleted_at, 0) = 0;

select id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
    follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
    max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
    secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
    verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
    verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
    verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
    failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
    created_at as "createdAt", updated_at as "updatedAt", revision as "revision"
  from endpoints
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

select id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
    follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
    max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
    secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
    verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
    verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
    verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
    failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
    created_at as "createdAt", updated_at as "updatedAt", revision as "revision"
  from endpoints
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and coalesce(deleted_at, 0) = 0;

select id as "id", state as "state", alg as "alg", public_jwk as "publicJwk", private_jwk as "privateJwk", created_at as "createdAt",
    published_at as "publishedAt", activated_at as "activatedAt", retired_at as "retiredAt", wanted_at as "wantedAt"
  from signing_keys
  order by case state when 'active' then 0 when 'next' then 1 when 'retiring' then 2 else 3 end, created_at, id;

select id, body
  from events
  where id = ?;

select id, cap, pace_ms as "paceMs", paced_at as "pacedAt", held_until as "heldUntil", filled, window_size as "windowSize",
    succeeded_at as "succeededAt", failures, probe_ms as "probeMs", blocked, blocked_since as "blockedSince"
  from lanes
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v)
  order by id;

select id, cap, pace_ms as "paceMs", paced_at as "pacedAt", held_until as "heldUntil", filled, window_size as "windowSize",
    succeeded_at as "succeededAt", failures, probe_ms as "probeMs", blocked, blocked_since as "blockedSince"
  from lanes
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and cap is not null
  order by id;

select id, name, status, created_at as "createdAt"
  from clients
  where id = ? and status in ('active', 'suspended');

select id, name, status, created_at as "createdAt"
  from clients
  where status in ('active', 'suspended')
  order by created_at, id limit ?;

select id, name, status, created_at as "createdAt"
  from clients
  where status in ('active', 'suspended') and (created_at, id) > (?, ?)
  order by created_at, id limit ?;

select id, octet_length(input) as bytes
  from ( select *
    from (select id, input
      from tasks
      where state = 'pending' and lane_id >= ? and lane_id < ?
      order by lane_id, line, rank, id limit ?) p
    union all select *
    from (select id, input
      from tasks
      where state = 'running' and lane_id >= ? and lane_id < ? and cancel_requested_at is null limit ?) q) x;

select id, revision as mark
  from tasks
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

select id, seq as mark
  from clients
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

select id, url
  from endpoints
  where client_id = ? and deleted_at is null;

select k.id as "id", k.client_id as "clientId", k.name as "name", k.hash as "hash", k.hint as "hint", k.scopes as "scopes",
    k.task_types as "taskTypes", k.created_at as "createdAt", k.expires_at as "expiresAt", k.revoked_at as "revokedAt",
    k.last_used_at as "lastUsedAt", (select c.status
    from clients c
    where c.id = k.client_id) as "clientStatus"
  from keys k
  where k.hash = ?;

select key
  from rate_limits
  where key in (select v.key
    from (select column1 as key
      from (values (?))
      where column1 is not null) v)
  order by key;

select lane_id as "laneId", line as line, rank as rank, id as id
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > (?, ?, ?, ?)
  order by lane_id, line, rank, id limit 1 offset 9999;

select lane_id as "laneId", line as line, rank as rank, id as id
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > (?, ?, ?, ?) and lane_id < ?
  order by lane_id, line, rank, id limit 1 offset 9999;

select lane_id as id, count(*) as n
  from deliveries
  where state = 'running' and lane_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) group by lane_id;

select lane_id as id, count(*) as n
  from tasks
  where state = 'running' and lane_id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) group by lane_id;

select s.id as "id", s.client_id as "clientId", s.type as "type", s.cron as "cron", s.timezone as "timezone", s.catch_up as "catchUp",
    s.next_at as "nextAt", s.revision as "revision", length(s.template) as "size"
  from schedules s
  where s.next_at is not null and s.paused_at is null and s.type in (select v.type
    from (select column1 as type
      from (values (?))
      where column1 is not null) v) and (select c.status
    from clients c
    where c.id = s.client_id) = 'active' and s.client_id not in (select x.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) x)
  order by s.next_at limit ?;

select seq
  from events
  where client_id = ? and seq > ?
  order by seq limit 1 offset 9999;

select seq
  from events
  where id = ? and (client_id = ?);

select v.id as "laneId", w.id as id, w.line as line, w.rank as rank
  from (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) v join deliveries w on w.id in (select id
    from (select x.id
      from deliveries x
      where x.lane_id = v.id and x.state = 'pending' and x.line = 0
      order by x.rank, x.id limit ?) h0
    union all select id
    from (select x.id
      from deliveries x
      where x.lane_id = v.id and x.state = 'pending' and x.line = 1
      order by x.rank, x.id limit ?) h1);

select v.id as "laneId", w.id as id, w.line as line, w.rank as rank
  from (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) v join tasks w on w.id in (select id
    from (select x.id
      from tasks x
      where x.lane_id = v.id and x.state = 'pending' and x.line = 0
      order by x.rank, x.id limit ?) h0
    union all select id
    from (select x.id
      from tasks x
      where x.lane_id = v.id and x.state = 'pending' and x.line = 1
      order by x.rank, x.id limit ?) h1);

select value
  from settings
  where name = ?;

select w.task_id as "taskId", w.state as state
  from (select column1 as id, column2 as generation
    from (values (?, ?))
    where column1 is not null) v join events e on e.task_id = v.id and e.generation = v.generation and e.terminal = 1 join deliveries w on w.task_id = v.id and w.event_id = e.id;

select x.id
  from deliveries x
  where x.lane_id = ? and x.state = 'pending'
  order by x.line, x.rank, x.id limit 1;

update clients
  set seq = clients.seq + v.n
  from (select column1 as client_id, column2 as n
    from (values (?, ?))
    where column1 is not null) v
  where clients.id = v.client_id
  returning clients.id as id, clients.seq as seq;

update clients
  set status = 'deleted'
  where id = ? and status in ('active', 'suspended')
  returning id, name, status, created_at as "createdAt";

update clients
  set status = 'erased', name = ''
  where id = ? and status = 'deleted'
  returning id, name, status, created_at as "createdAt";

update clients
  set status = ?
  where id = ? and status in ('active', 'suspended')
  returning id, name, status, created_at as "createdAt";

update deliveries
  set body = case when body is null then null else '' end, updated_at = ?, fence = fence + case when state in ('pending',
      'running') then 1 else 0 end, canceled_reason = case when state in ('pending', 'running') then 'taskDeleted' else canceled_reason end,
      finished_at = case when state in ('pending', 'running') then ? else finished_at end, leased_until = null, leased_by = null,
      state = case when state in ('pending', 'running') then 'canceled' else state end
  where task_id = ?
  returning client_id as "clientId", lane_id as "laneId";

update deliveries
  set fence = deliveries.fence + 1, tries = deliveries.tries - 1, state = 'canceled', canceled_reason = v.why, finished_at = ?, updated_at = ?,
      leased_until = null, leased_by = null
  from (select column1 as delivery_id, column2 as why
    from (values (?, ?))
    where column1 is not null) v
  where deliveries.id = v.delivery_id;

update deliveries
  set fence = fence + 1, state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = ?, updated_at = ?, leased_until = null,
      leased_by = null
  where coalesce(state, '') in ('pending', 'running') and id in (select x.id
    from deliveries x
    where x.lane_id = ? and x.state = 'pending'
    order by x.line, x.rank, x.id limit ?);

update deliveries
  set fence = fence + 1, state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = ?, updated_at = ?, leased_until = null,
      leased_by = null
  where coalesce(state, '') in ('pending', 'running') and id in (select x.id
    from deliveries x
    where x.lane_id = ? and x.state = 'running');

update deliveries
  set fence = fence + 1, state = 'canceled', canceled_reason = 'superseded', finished_at = ?, updated_at = ?, leased_until = null,
      leased_by = null
  where id = ? and coalesce(state, '') in ('pending', 'running');

update deliveries
  set leased_until = ? + ?
  from (select column1 as work_id, column2 as at_fence
    from (values (?, ?))
    where column1 is not null) v
  where deliveries.id = v.work_id and deliveries.fence = v.at_fence and coalesce(deliveries.state, '') = 'running'
  returning deliveries.id as id, null as "cancelRequestedAt";

update deliveries
  set line = 1, rank = ?, due_at = ?, retry_after_at = null, updated_at = ?
  where id = ? and coalesce(state, '') = 'pending'
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
      event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
      trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
      updated_at as "updatedAt", finished_at as "finishedAt";

update deliveries
  set state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = ?, updated_at = ?, retry_after_at = null
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and (select e.deleted_at
    from endpoints e
    where e.id = deliveries.endpoint_id) is not null
  returning deliveries.id as "id", deliveries.client_id as "clientId", deliveries.lane_id as "laneId", deliveries.state as "state",
      deliveries.line as "line", deliveries.rank as "rank", deliveries.due_at as "dueAt", deliveries.tries as "tries",
      deliveries.max_tries as "maxTries", deliveries.fence as "fence", deliveries.leased_until as "leasedUntil", deliveries.leased_by as "leasedBy",
      deliveries.event_id as "eventId", deliveries.event_type as "eventType", deliveries.task_id as "taskId", deliveries.endpoint_id as "endpointId",
      deliveries.url as "url", deliveries.body as "body", deliveries.retry_schedule as "retrySchedule", deliveries.trigger as "trigger",
      deliveries.retry_after_at as "retryAfterAt", deliveries.canceled_reason as "canceledReason", deliveries.created_at as "createdAt",
      deliveries.updated_at as "updatedAt", deliveries.finished_at as "finishedAt";

update deliveries
  set state = 'canceled', canceled_reason = 'superseded', fence = fence + 1, finished_at = ?, updated_at = ?
  where coalesce(state, '') = 'pending' and id in (select x.id
    from deliveries x
    where x.id in (select k.id
      from (select column1 as task_id, column2 as endpoint_id
        from (values (?, ?))
        where column1 is not null) v join deliveries k on k.task_id = v.task_id and k.endpoint_id || '' = v.endpoint_id and k.event_type = 'task.progress' and k.state || '' = 'pending')
    order by x.id );

update deliveries
  set state = 'running', fence = fence + 1, tries = tries + 1, leased_until = ? + ?, leased_by = ?, updated_at = ?, retry_after_at = null
  where id in (select x.id
    from deliveries x
    where x.id in (select v.id
      from (select column1 as id
        from (values (?))
        where column1 is not null) v) and coalesce(x.state, '') = 'pending' )
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
      event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
      trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
      updated_at as "updatedAt", finished_at as "finishedAt";

update deliveries
  set state = v.wish, updated_at = ?, leased_until = null, leased_by = null, tries = deliveries.tries - v.back,
      line = case when v.wish = 'pending' then 1 else deliveries.line end,
      rank = case when v.wish = 'pending' then ? + v.delay_ms else deliveries.rank end,
      due_at = case when v.wish = 'pending' then ? + v.delay_ms else deliveries.due_at end,
      retry_after_at = case when v.hold_ms is null then null else ? + v.hold_ms end, finished_at = case when v.wish = 'pending' then null else ? end
  from (select column1 as delivery_id, column2 as at_fence, column3 as wish, column4 as delay_ms, column5 as hold_ms, column6 as back
    from (values (?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where deliveries.id = v.delivery_id and deliveries.fence = v.at_fence and coalesce(deliveries.state, '') = 'running'
  returning deliveries.id as "id", deliveries.client_id as "clientId", deliveries.lane_id as "laneId", deliveries.state as "state",
      deliveries.line as "line", deliveries.rank as "rank", deliveries.due_at as "dueAt", deliveries.tries as "tries",
      deliveries.max_tries as "maxTries", deliveries.fence as "fence", deliveries.leased_until as "leasedUntil", deliveries.leased_by as "leasedBy",
      deliveries.event_id as "eventId", deliveries.event_type as "eventType", deliveries.task_id as "taskId", deliveries.endpoint_id as "endpointId",
      deliveries.url as "url", deliveries.body as "body", deliveries.retry_schedule as "retrySchedule", deliveries.trigger as "trigger",
      deliveries.retry_after_at as "retryAfterAt", deliveries.canceled_reason as "canceledReason", deliveries.created_at as "createdAt",
      deliveries.updated_at as "updatedAt", deliveries.finished_at as "finishedAt";

update endpoints
  set deleted_at = ?, updated_at = ?, headers = null, secret = '', previous_secret = null, revision = revision + 1
  where id = ? and client_id = coalesce(?, client_id) and coalesce(deleted_at, 0) = 0
  returning client_id as "clientId";

update endpoints
  set description = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set disabled_at = ?, disabled_reason = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set disabled_at = ?, disabled_reason = v.reason, revision = endpoints.revision + 1, updated_at = ?
  from (select column1 as endpoint_id, column2 as at_url, column3 as reason
    from (values (?, ?, ?))
    where column1 is not null) v
  where endpoints.id = v.endpoint_id and (v.at_url is null or endpoints.url = v.at_url) and coalesce(endpoints.deleted_at,
      0) = 0 and (endpoints.disabled_at is null or endpoints.disabled_reason = 'failing' and v.reason <> 'failing') and (v.reason <> 'failing' or endpoints.failing_since <= ? - 432000000)
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set failing_since = ?
  from (select column1 as endpoint_id, column2 as at_url
    from (values (?, ?))
    where column1 is not null) v
  where endpoints.id = v.endpoint_id and (v.at_url is null or endpoints.url = v.at_url) and endpoints.failing_since is null;

update endpoints
  set failing_since = null, failing_told_at = null, disabled_at = null, disabled_reason = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set failing_since = null, failing_told_at = null, last_success_at = ?
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and (failing_since is not null or last_success_at is null or last_success_at < ? - 1000);

update endpoints
  set headers = ?, max_per_minute = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set max_per_minute = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set paused_at = coalesce(paused_at, ?), revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set paused_at = null, failing_since = null, failing_told_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set secret = ?, secret_hint = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set url = ?, failing_since = null, failing_told_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set url = ?, failing_since = null, failing_told_at = null, verified_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set url = ?, headers = ?, failing_since = null, failing_told_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set verification_delivery_id = ?, verification_error = null, verification_expires_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set verification_error = ?
  where verification_delivery_id = ? and id = ? and deleted_at is null;

update endpoints
  set verified_at = ?, first_verified_at = coalesce(first_verified_at, ?), allowed_rate = ?, verification_delivery_id = null,
      verification_error = null, verification_expires_at = null, revision = revision + 1, updated_at = ?
  where verification_delivery_id = ? and id = ? and deleted_at is null
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set verified_at = ?, first_verified_at = coalesce(first_verified_at, ?), verification_delivery_id = null, verification_error = null,
      verification_expires_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update endpoints
  set verified_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", url as "url", description as "description", events as "events", task_types as "taskTypes",
      follows as "follows", headers as "headers", header_names as "headerNames", format as "format", payload as "payload",
      max_per_minute as "maxPerMinute", max_in_flight as "maxInFlight", allowed_rate as "allowedRate", retry_schedule as "retrySchedule",
      secret as "secret", secret_hint as "secretHint", previous_secret as "previousSecret", previous_secret_until as "previousSecretUntil",
      verification as "verification", verified_at as "verifiedAt", first_verified_at as "firstVerifiedAt",
      verification_delivery_id as "verificationDeliveryId", verification_error as "verificationError",
      verification_expires_at as "verificationExpiresAt", paused_at as "pausedAt", disabled_at as "disabledAt", disabled_reason as "disabledReason",
      failing_since as "failingSince", failing_told_at as "failingToldAt", last_success_at as "lastSuccessAt", deleted_at as "deletedAt",
      created_at as "createdAt", updated_at as "updatedAt", revision as "revision";

update events
  set body = ''
  where id in ( select e.id
    from events e
    where e.task_id = ? and e.terminal = 1
    union all select e.id
    from events e
    where e.task_id = ? and e.terminal = 0);

update keys
  set expires_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
      created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt";

update keys
  set expires_at = case when expires_at < ? + ? then expires_at else ? + ? end
  where id = ?;

update keys
  set last_used_at = ?
  where id in (select x.id
    from keys x
    where x.id in (select v.id
      from (select column1 as id
        from (values (?))
        where column1 is not null) v) and coalesce(x.last_used_at, 0) <= ? - ? );

update keys
  set revoked_at = coalesce(revoked_at, ?)
  where id = ? and client_id is ?
  returning id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
      created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt";

update lanes
  set filled = 0, cap = v.cap, pace_ms = v.pace_ms, held_until = v.held_until, window_size = v.window_size, succeeded_at = v.succeeded_at,
      failures = v.failures, probe_ms = v.probe_ms, blocked = v.blocked, blocked_since = v.blocked_since
  from (select column1 as lane_id, column2 as cap, column3 as pace_ms, column4 as held_until, column5 as window_size, column6 as succeeded_at,
      column7 as failures, column8 as probe_ms, column9 as blocked, column10 as blocked_since
    from (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where lanes.id = v.lane_id;

update lanes
  set filled = 1
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v);

update lanes
  set paced_at = v.at
  from (select column1 as lane_id, column2 as at
    from (values (?, ?))
    where column1 is not null) v
  where lanes.id = v.lane_id;

update rate_limits
  set points = rate_limits.points - v.points
  from (select column1 as key, column2 as points, column3 as expire
    from (values (?, ?, ?))
    where column1 is not null) v
  where rate_limits.key = v.key and rate_limits.expire = v.expire and rate_limits.points >= v.points;

update rate_limits
  set points = v.most
  from (select column1 as key, column2 as most
    from (values (?, ?))
    where column1 is not null) v
  where rate_limits.key = v.key and rate_limits.points > v.most;

update schedules
  set catch_up = ?, next_at = ?, paused_at = null, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set catch_up = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set next_at = ?, paused_at = coalesce(paused_at, ?), revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set next_at = v.upcoming_at, last_at = coalesce(v.latest_at, schedules.last_at)
  from (select column1 as schedule_id, column2 as known_at, column3 as known_revision, column4 as upcoming_at, column5 as latest_at
    from (values (?, ?, ?, ?, ?))
    where column1 is not null) v
  where schedules.id = v.schedule_id and schedules.next_at = v.known_at and schedules.revision = v.known_revision and coalesce(schedules.paused_at,
      0) = 0
  returning schedules.id as "id", schedules.client_id as "clientId", schedules.type as "type", schedules.template as "template";

update schedules
  set paused_at = coalesce(paused_at, ?), revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set template = ?, revision = revision + 1, updated_at = ?
  where id = ?
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update signing_keys
  set wanted_at = coalesce(wanted_at, ?)
  where state = 'next';

update tasks
  set fence = fence + case when state = 'pending' then 1 else 0 end,
      cancel_requested_at = case when state = 'running' then ? else cancel_requested_at end,
      finished_at = case when state = 'pending' then ? else finished_at end, state = case when state = 'pending' then 'canceled' else state end,
      revision = revision + 1, updated_at = ?
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and client_id = coalesce(?,
          client_id) and (state = 'pending' or state = 'running' and cancel_requested_at is null)
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
      generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
      progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
      concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
      updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
      timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate";

update tasks
  set leased_until = ? + ?
  from (select column1 as work_id, column2 as at_fence
    from (values (?, ?))
    where column1 is not null) v
  where tasks.id = v.work_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running'
  returning tasks.id as id, tasks.cancel_requested_at as "cancelRequestedAt";

update tasks
  set progress = case when v.progress > tasks.progress then v.progress else tasks.progress end, progress_message = v.message,
      revision = tasks.revision + 1, updated_at = ?
  from (select column1 as task_id, column2 as at_fence, column3 as progress, column4 as message
    from (values (?, ?, ?, ?))
    where column1 is not null) v
  where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running'
  returning tasks.id as "id", tasks.client_id as "clientId", tasks.lane_id as "laneId", tasks.state as "state", tasks.line as "line",
      tasks.rank as "rank", tasks.due_at as "dueAt", tasks.tries as "tries", tasks.max_tries as "maxTries", tasks.fence as "fence",
      tasks.leased_until as "leasedUntil", tasks.leased_by as "leasedBy", tasks.type as "type", tasks.generation as "generation",
      tasks.revision as "revision", tasks.input as "input", tasks.result as "result", tasks.error as "error", tasks.last_error as "lastError",
      tasks.progress as "progress", tasks.progress_message as "progressMessage", tasks.metadata as "metadata", tasks.priority as "priority",
      tasks.concurrency_key as "concurrencyKey", tasks.callback as "callback", tasks.batch_id as "batchId", tasks.schedule_id as "scheduleId",
      tasks.created_at as "createdAt", tasks.updated_at as "updatedAt", tasks.started_at as "startedAt", tasks.finished_at as "finishedAt",
      tasks.start_by as "startBy", tasks.deadline_at as "deadlineAt", tasks.timeout_seconds as "timeoutSeconds",
      tasks.cancel_requested_at as "cancelRequestedAt", tasks.traceparent as "traceparent", tasks.tracestate as "tracestate";

update tasks
  set state = 'pending', generation = generation + 1, revision = revision + 1, tries = 0, progress = 0, progress_message = null, result = null,
      error = null, last_error = null, started_at = null, finished_at = null, cancel_requested_at = null, start_by = null, deadline_at = null,
      due_at = ?, line = 0, rank = ? - priority * 1000, updated_at = ?
  where id in (select v.id
    from (select column1 as id
      from (values (?))
      where column1 is not null) v) and client_id = coalesce(?, client_id) and state in ('failed', 'canceled')
  returning id, client_id as "clientId", lane_id as "laneId", type, rank, updated_at as "updatedAt";

update tasks
  set state = 'running', fence = fence + 1, tries = tries + 1, revision = revision + 1, leased_until = ? + ?, leased_by = ?, started_at = ?,
      updated_at = ?, progress = 0, progress_message = null
  where id in (select x.id
    from tasks x
    where x.id in (select v.id
      from (select column1 as id
        from (values (?))
        where column1 is not null) v) and coalesce(x.state, '') = 'pending' )
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
      generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
      progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
      concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
      updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
      timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate";

update tasks
  set state = 'running', fence = tasks.fence + 1, tries = tasks.tries + 1
  from (select column1 as task_id, column2 as at_fence
    from (values (?, ?))
    where column1 is not null) v
  where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'pending'
  returning tasks.id as id, tasks.fence as fence;

update tasks
  set state = case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end,
      revision = tasks.revision + 1, updated_at = ?, leased_until = null, leased_by = null,
      fence = tasks.fence + case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'canceled' then 1 else 0 end,
      tries = tasks.tries - v.back,
      started_at = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'failed' and v.back = tasks.tries then null else tasks.started_at end,
      line = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then 1 else tasks.line end,
      rank = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then ? + v.delay_ms else tasks.rank end,
      due_at = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then ? + v.delay_ms else tasks.due_at end,
      finished_at = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then null else ? end,
      progress = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'completed' then 100 else tasks.progress end,
      result = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'completed' then v.result else null end,
      error = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'failed' then v.error else null end,
      last_error = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' and v.error is not null then v.error else tasks.last_error end
  from (select column1 as task_id, column2 as at_fence, column3 as wish, column4 as delay_ms, column5 as back, column6 as result,
      column7 as error
    from (values (?, ?, ?, ?, ?, ?, ?))
    where column1 is not null) v
  where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running'
  returning tasks.id as "id", tasks.client_id as "clientId", tasks.lane_id as "laneId", tasks.state as "state", tasks.line as "line",
      tasks.rank as "rank", tasks.due_at as "dueAt", tasks.tries as "tries", tasks.max_tries as "maxTries", tasks.fence as "fence",
      tasks.leased_until as "leasedUntil", tasks.leased_by as "leasedBy", tasks.type as "type", tasks.generation as "generation",
      tasks.revision as "revision", tasks.input as "input", tasks.result as "result", tasks.error as "error", tasks.last_error as "lastError",
      tasks.progress as "progress", tasks.progress_message as "progressMessage", tasks.metadata as "metadata", tasks.priority as "priority",
      tasks.concurrency_key as "concurrencyKey", tasks.callback as "callback", tasks.batch_id as "batchId", tasks.schedule_id as "scheduleId",
      tasks.created_at as "createdAt", tasks.updated_at as "updatedAt", tasks.started_at as "startedAt", tasks.finished_at as "finishedAt",
      tasks.start_by as "startBy", tasks.deadline_at as "deadlineAt", tasks.timeout_seconds as "timeoutSeconds",
      tasks.cancel_requested_at as "cancelRequestedAt", tasks.traceparent as "traceparent", tasks.tracestate as "tracestate";

update turns
  set turn = alarm_at, alarm_at = null
  where seq in (select x.seq
    from turns x
    where x.alarm_at <= ?
    order by x.alarm_at limit 500 );

with recursive line(queue, client_id, n) as ( select q.id, (select t.client_id
      from turns t
      where t.queue = q.id and t.client_id > q.since and t.turn is not null
      order by t.client_id limit 1), 0
    from (select column1 as id, column2 as cap, column3 as since
      from (values (?, ?, ?))
      where column1 is not null) q
    where not exists (select 1
      from queues g
      where g.id = q.id and g.paused_at is not null) and (q.cap is null or q.cap > (select count(*)
        from deliveries r
        where r.state = 'running' and true))
    union all select l.queue, (select t.client_id
      from turns t
      where t.queue = l.queue and t.client_id > l.client_id and t.turn is not null
      order by t.client_id limit 1), l.n + 1
    from line l
    where l.client_id is not null and l.n + 1 < ?) select t.seq as seq, t.lane_id as "laneId", t.queue as queue, t.client_id as "clientId",
        t.turn as turn, l.id as known, l.cap as cap, l.filled as filled, l.held_until as "heldUntil", l.window_size as "windowSize",
        l.succeeded_at as "succeededAt", l.probe_ms as "probeMs", null as "alarmAt", null as now
  from line c join turns t on t.seq in (select x.seq
    from turns x
    where x.queue = c.queue and x.client_id = c.client_id and x.turn is not null
    order by x.turn, x.seq limit ?) left join lanes l on l.id = t.lane_id
  union all select null, null, null, null, null, null, null, null, null, null, null, null, (select a.alarm_at
    from turns a
    where a.alarm_at is not null
    order by a.alarm_at limit 1), ?;

with recursive line(queue, client_id, n) as ( select q.id, (select t.client_id
      from turns t
      where t.queue = q.id and t.client_id > q.since and t.turn is not null
      order by t.client_id limit 1), 0
    from (select column1 as id, column2 as cap, column3 as since
      from (values (?, ?, ?))
      where column1 is not null) q
    where not exists (select 1
      from queues g
      where g.id = q.id and g.paused_at is not null) and (q.cap is null or q.cap > (select count(*)
        from tasks r
        where r.state = 'running' and 'task/' || r.type = q.id))
    union all select l.queue, (select t.client_id
      from turns t
      where t.queue = l.queue and t.client_id > l.client_id and t.turn is not null
      order by t.client_id limit 1), l.n + 1
    from line l
    where l.client_id is not null and l.n + 1 < ?) select t.seq as seq, t.lane_id as "laneId", t.queue as queue, t.client_id as "clientId",
        t.turn as turn, l.id as known, l.cap as cap, l.filled as filled, l.held_until as "heldUntil", l.window_size as "windowSize",
        l.succeeded_at as "succeededAt", l.probe_ms as "probeMs", null as "alarmAt", null as now
  from line c join turns t on t.seq in (select x.seq
    from turns x
    where x.queue = c.queue and x.client_id = c.client_id and x.turn is not null
    order by x.turn, x.seq limit ?) left join lanes l on l.id = t.lane_id
  union all select null, null, null, null, null, null, null, null, null, null, null, null, (select a.alarm_at
    from turns a
    where a.alarm_at is not null
    order by a.alarm_at limit 1), ?;

with scanned as (select id, created_at
    from deliveries
    where client_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id = ? and (created_at, id) < (?, ?)
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id = ? and (created_at, id) < (?, ?)
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id = ? and created_at < ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id = ? and created_at >= ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and endpoint_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.event_type = ?) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and endpoint_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and endpoint_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and endpoint_id = ? and (created_at, id) < (?, ?)
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and endpoint_id = ? and (created_at, id) < (?, ?)
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and task_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and task_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and task_id = ? and (created_at, id) < (?, ?)
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where client_id || '' = ? and task_id = ? and (created_at, id) < (?, ?)
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select id, created_at
    from deliveries
    where endpoint_id = ?
    order by created_at desc, id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.event_type = ?) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url",
        body as "body", retry_schedule as "retrySchedule", trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason",
        created_at as "createdAt", updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = ? and l.value = ? and l.client_id = ?
    order by l.created_at asc, l.task_id asc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at asc, s.id asc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line",
        rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at asc, id asc;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = ? and l.value = ? and l.client_id = ?
    order by l.created_at desc, l.task_id desc limit ?) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = ? and l.value = ? and l.client_id = ?
    order by l.created_at desc, l.task_id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.batch_id = ?) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = ? and l.value = ? and l.client_id = ?
    order by l.created_at desc, l.task_id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = ? and l.value = ? and l.client_id = ?
    order by l.created_at desc, l.task_id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.batch_id = ? and t.client_id || '' = ?
    order by t.created_at desc, t.id desc limit ?) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.batch_id = ? and t.client_id || '' = ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.batch_id = ?) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at asc, t.id asc limit ?) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at desc, s.id desc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at asc, t.id asc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = ?) = 1
    order by s.created_at asc, s.id asc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line",
        rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at asc, t.id asc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at asc, s.id asc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line",
        rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at desc, t.id desc limit ?) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.state in (?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.state in (?, ?)) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = ?) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and (t.created_at, t.id) < (?, ?)
    order by t.created_at desc, t.id desc limit ?) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and (t.created_at, t.id) < (?, ?)
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = ?) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and (t.created_at, t.id) < (?, ?)
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and (t.created_at, t.id) > (?, ?)
    order by t.created_at asc, t.id asc limit ?) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at desc, s.id desc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and (t.created_at, t.id) > (?, ?)
    order by t.created_at asc, t.id asc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = ?) = 1
    order by s.created_at asc, s.id asc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line",
        rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and (t.created_at, t.id) > (?, ?)
    order by t.created_at asc, t.id asc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at asc, s.id asc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line",
        rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and t.created_at < ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = ? and t.created_at > ?
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;

with scanned as (select t.id, t.created_at
    from tasks t
    where true
    order by t.created_at desc, t.id desc limit ?), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit ?) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
        line as "line", rank as "rank", due_at as "dueAt", tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil",
        leased_by as "leasedBy", type as "type", generation as "generation", revision as "revision", input as "input", result as "result",
        error as "error", last_error as "lastError", progress as "progress", progress_message as "progressMessage", metadata as "metadata",
        priority as "priority", concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId",
        created_at as "createdAt", updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy",
        deadline_at as "deadlineAt", timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent",
        tracestate as "tracestate"
  from tasks
  where id in (select id
    from fitting)
  order by created_at desc, id desc;
