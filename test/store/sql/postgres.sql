delete from attempts
  where delivery_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

delete from audit_log
  where id = any(array(select x.id
      from audit_log x
      where x.id < $1
      order by x.id limit $2 for no key update skip locked))
  returning id;

delete from deliveries
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

delete from endpoints
  where id = any(array(select e.id
      from endpoints e
      where e.client_id = $1 and e.deleted_at is not null limit $2))
  returning id;

delete from events
  where ctid = any(array(select x.ctid
      from events x
      where x.client_id = $1 and 1 = 1
      order by x.seq limit $2 for no key update skip locked))
  returning 1 as one;

delete from idempotency
  where ctid = any(array(select x.ctid
      from idempotency x
      where x.client_id = $1 and 1 = 1
      order by x.scope, x.key limit $2 for no key update skip locked))
  returning 1 as one;

delete from keys
  where client_id = $1;

delete from keys
  where id = any(array(select x.id
      from keys x
      where coalesce(x.revoked_at,
          x.expires_at) <= (extract(epoch from clock_timestamp()) * 1000)::int8 - $1 limit $2 for no key update skip locked))
  returning id;

delete from labels
  where ctid = any(array(select x.ctid
      from labels x
      where x.client_id = $1 and 1 = 1
      order by x.name, x.value, x.created_at, x.task_id limit $2 for no key update skip locked))
  returning 1 as one;

delete from labels
  where task_id = $1;

delete from lanes
  where id = $1;

delete from lanes
  where id >= $1 and id < $2;

delete from rate_limits
  where key = any(array(select v.key
      from (select *
        from json_to_recordset($1::json) as j(key text)) v));

delete from schedules
  where client_id = $1;

delete from schedules
  where id = $1 and client_id = coalesce($2::text, client_id)
  returning client_id as "clientId";

delete from tasks
  where ctid = any(array(select x.ctid
      from tasks x
      where x.client_id = $1 and x.state not in ('pending', 'running')
      order by x.created_at, x.id limit $2 for no key update skip locked))
  returning 1 as one;

delete from tasks
  where id = $1 and client_id = coalesce($2::text, client_id) and state in ('completed', 'failed', 'canceled')
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
      generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
      progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
      concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
      updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
      timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate";

delete from turns
  where lane_id = $1;

delete from turns
  where seq = any(array(select x.seq
      from turns x
      where x.lane_id = any(array(select v.id
          from (select *
            from json_to_recordset($1::json) as j(id text)) v)) limit 5000 for no key update skip locked));

delete from turns
  where seq = any(array(select x.seq
      from turns x
      where x.seq = any(array(select v.seq
          from (select *
            from json_to_recordset($1::json) as j(seq int8)) v)) for no key update skip locked));

delete from turns
  where seq = any(array(select x.seq
      from turns x
      where x.turn is not null and x.lane_id = any(array(select l.id
          from lanes l
          where l.id = any(array(select v.id
              from (select *
                from json_to_recordset($1::json) as j(id text)) v)) and (l.filled = 1 or l.held_until > (extract(epoch from clock_timestamp()) * 1000)::int8)
          order by l.id for no key update skip locked)) limit 5000 for no key update skip locked));

insert into attempts (delivery_id, fence, started_at, duration_ms, outcome, http_status, error, timings, key_id, retry_after_seconds,
    response_headers, response_excerpt, remote_address) select delivery_id, fence, started_at, duration_ms, outcome, http_status, error, timings,
    key_id, retry_after_seconds, response_headers, response_excerpt, remote_address
  from (select *
    from json_to_recordset($1::json) as j(delivery_id text, fence int8, started_at int8, duration_ms int8, outcome text, http_status int8,
        error text, timings text, key_id text, retry_after_seconds int8, response_headers text, response_excerpt text, remote_address text)) v
  where true
  on conflict (delivery_id, fence) do nothing;

insert into audit_log (id, at, actor, action, target, client_id, details, request_id, remote_address)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

insert into clients (id, name, status, seq, created_at)
  values ($1, $2, 'active', 0, (extract(epoch from clock_timestamp()) * 1000)::int8)
  returning id, name, status, created_at as "createdAt";

insert into deliveries (id, lane_id, client_id, endpoint_id, event_id, event_type, task_id, url, body, retry_schedule, trigger, max_tries,
    created_at, state, line, rank, due_at, tries, fence, updated_at, leased_until, leased_by) select id, lane_id, client_id, endpoint_id, event_id,
    event_type, task_id, url, body, retry_schedule, trigger, max_tries, created_at, case when start = 1 then 'running' else 'pending' end, 0,
    created_at, created_at, start, start, created_at, case when start = 1 then (extract(epoch from clock_timestamp()) * 1000)::int8 + $1 end,
    case when start = 1 then $2::text end
  from (select *
    from json_to_recordset($3::json) as j(id text, lane_id text, client_id text, endpoint_id text, event_id text, event_type text, task_id text,
        url text, body text, retry_schedule text, trigger text, max_tries int8, created_at int8, start int8)) v;

insert into endpoints (id, client_id, url, description, events, task_types, follows, headers, header_names, format, payload, max_per_minute,
    max_in_flight, retry_schedule, secret, secret_hint, verification, verified_at, first_verified_at, created_at, updated_at, revision) select id,
    client_id, url, description, events, task_types, follows, headers, header_names, format, payload, max_per_minute, max_in_flight,
    retry_schedule, secret, secret_hint, verification, case when $1 = 1 then (extract(epoch from clock_timestamp()) * 1000)::int8 else null end,
    case when $2 = 1 then (extract(epoch from clock_timestamp()) * 1000)::int8 else null end, (extract(epoch from clock_timestamp()) * 1000)::int8,
    (extract(epoch from clock_timestamp()) * 1000)::int8, 1
  from (select *
    from json_to_recordset($3::json) as j(id text, client_id text, url text, description text, events text, task_types text, follows int8,
        headers text, header_names text, format text, payload text, max_per_minute int8, max_in_flight int8, retry_schedule text, secret text,
        secret_hint text, verification text)) v
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
  from (select *
    from json_to_recordset($1::json) as j(id text, client_id text, task_id text, endpoint_id text, type text, terminal int8, generation int8,
        revision int8, seq int8, body text, created_at int8)) v;

insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at) select v.client_id, 'lease', v.key, v.fingerprint, '[]',
    (extract(epoch from clock_timestamp()) * 1000)::int8 + $1
  from (select *
    from json_to_recordset($2::json) as j(client_id text, key text, fingerprint text)) v
  where true
  order by v.client_id, v.key
  on conflict (client_id, scope, key) do nothing;

insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at) select v.client_id, v.scope, v.key, v.fingerprint,
    v.task_ids, (extract(epoch from clock_timestamp()) * 1000)::int8 + $1
  from (select *
    from json_to_recordset($2::json) as j(client_id text, scope text, key text, fingerprint text, task_ids text)) v
  where true
  order by v.client_id, v.scope, v.key
  on conflict (client_id, scope, key) do update
  set fingerprint = excluded.fingerprint, task_ids = excluded.task_ids, expires_at = excluded.expires_at
  where idempotency.expires_at <= (extract(epoch from clock_timestamp()) * 1000)::int8
  returning task_ids as "taskIds";

insert into keys (id, client_id, name, hash, hint, scopes, task_types, expires_at, created_at) select id, client_id, name, hash, hint, scopes,
    task_types, expires_at, (extract(epoch from clock_timestamp()) * 1000)::int8
  from (select *
    from json_to_recordset($1::json) as j(id text, client_id text, name text, hash text, hint text, scopes text, task_types text,
        expires_at int8)) v
  where v.client_id is null or (select c.status
    from clients c
    where c.id = v.client_id) in ('active', 'suspended')
  returning id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
      created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt";

insert into labels (client_id, name, value, created_at, task_id) select v.client_id, v.name, v.value, v.created_at, v.task_id
  from (select *
    from json_to_recordset($1::json) as j(client_id text, name text, value text, created_at int8, task_id text)) v;

insert into lanes (id, cap, pace_ms, paced_at, held_until, filled, window_size) select v.id, v.cap, v.pace_ms, 0, v.held_until, 0,
    v.window_size
  from (select *
    from json_to_recordset($1::json) as j(id text, cap int8, pace_ms int8, held_until int8, window_size int8)) v
  where true
  order by v.id
  on conflict (id) do nothing;

insert into queues (id, paused_at)
  values ($1, (extract(epoch from clock_timestamp()) * 1000)::int8)
  on conflict (id) do update
  set paused_at = coalesce(queues.paused_at, excluded.paused_at)
  returning id, paused_at as "pausedAt", worker_seen_at as "workerSeenAt";

insert into rate_limits (key, points, expire) select v.key, v.points, (extract(epoch from clock_timestamp()) * 1000)::int8 + $1
  from (select *
    from json_to_recordset($2::json) as j(key text, points int8)) v
  where true
  order by v.key
  on conflict (key) do update
  set points = case when rate_limits.expire + $3 <= excluded.expire then excluded.points else rate_limits.points + excluded.points end,
      expire = case when rate_limits.expire + $4 <= excluded.expire then excluded.expire else rate_limits.expire end
  returning key, points, expire, expire - (extract(epoch from clock_timestamp()) * 1000)::int8 as "leftMs";

insert into schedules (id, client_id, type, cron, timezone, catch_up, template, next_at, paused_at, created_at, updated_at,
    revision) select id, client_id, type, cron, timezone, catch_up, template, next_at,
    case when $1 = 1 then (extract(epoch from clock_timestamp()) * 1000)::int8 else null end, (extract(epoch from clock_timestamp()) * 1000)::int8,
    (extract(epoch from clock_timestamp()) * 1000)::int8, 1
  from (select *
    from json_to_recordset($2::json) as j(id text, client_id text, type text, cron text, timezone text, catch_up text, template text,
        next_at int8)) v
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

insert into settings (name, value)
  values ($1, $2)
  on conflict (name) do nothing;

insert into signing_keys (id, state, alg, public_jwk, private_jwk, created_at, published_at, activated_at, retired_at, wanted_at) select id,
    state, alg, public_jwk, private_jwk, created_at, published_at, activated_at, retired_at, wanted_at
  from (select *
    from json_to_recordset($1::json) as j(id text, state text, alg text, public_jwk text, private_jwk text, created_at int8, published_at int8,
        activated_at int8, retired_at int8, wanted_at int8)) v
  where true
  order by v.state
  on conflict do nothing;

insert into tasks (id, client_id, lane_id, type, input, metadata, callback, start_by, deadline_at, timeout_seconds, max_tries, priority,
    concurrency_key, batch_id, schedule_id, traceparent, tracestate, state, line, rank, due_at, tries, fence, generation, revision, progress,
    created_at, updated_at, leased_until, leased_by, started_at) select v.id, v.client_id, v.lane_id, v.type, v.input, v.metadata, v.callback,
    v.start_by, v.deadline_at, v.timeout_seconds, v.max_tries, v.priority, v.concurrency_key, v.batch_id, v.schedule_id, v.traceparent,
    v.tracestate, case when v.start = 1 then 'running' else 'pending' end, case when v.due is null then 0 else 1 end, coalesce(v.due,
    n.at - v.priority * 1000), coalesce(v.due, n.at), v.start, v.start, 1, 1 + v.start, 0, n.at, n.at, case when v.start = 1 then n.at + $1 end,
    case when v.start = 1 then $2::text end, case when v.start = 1 then n.at end
  from (select *
    from json_to_recordset($3::json) as j(id text, client_id text, lane_id text, type text, input text, metadata text, callback text, start int8,
        due int8, start_by int8, deadline_at int8, timeout_seconds int8, max_tries int8, priority int8, concurrency_key text, batch_id text,
        schedule_id text, traceparent text, tracestate text)) v cross join (select (extract(epoch from clock_timestamp()) * 1000)::int8 as at) n
  returning id, due_at as "dueAt", rank, created_at as "createdAt";

insert into tombstones (id, client_id, expires_at)
  values ($1, $2, (extract(epoch from clock_timestamp()) * 1000)::int8 + $3);

insert into turns (queue, client_id, lane_id, turn, alarm_at) select v.queue, v.client_id, v.lane_id, v.turn, v.alarm_at
  from (select *
    from json_to_recordset($1::json) as j(queue text, client_id text, lane_id text, turn int8, alarm_at int8)) v;

select (extract(epoch from clock_timestamp()) * 1000)::int8 as now;

select at, id
  from audit_log
  where id < $1
  order by id desc limit 1 offset $2;

select at, id
  from audit_log
  where true
  order by id desc limit 1 offset $1;

select count(*) as n
  from keys
  where client_id = $1 and revoked_at is null and (expires_at is null or expires_at > (extract(epoch from clock_timestamp()) * 1000)::int8);

select count(*) as n
  from schedules
  where client_id = $1;

select count(*) as n
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > ($1, $2, $3, $4);

select count(*) as n
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > ($1, $2, $3, $4) and lane_id < $5;

select count(*) as n
  from tasks
  where state = 'running' and lane_id >= $1 and lane_id < $2;

select count(*) as n
  from tasks
  where state = 'running' and true;

select created_at as at, id
  from deliveries
  where client_id = $1
  order by created_at desc, id desc limit 1 offset $2;

select created_at as at, id
  from deliveries
  where client_id = $1 and (created_at, id) < ($2, $3)
  order by created_at desc, id desc limit 1 offset $4;

select created_at as at, id
  from deliveries
  where client_id || '' = $1 and endpoint_id = $2
  order by created_at desc, id desc limit 1 offset $3;

select created_at as at, id
  from deliveries
  where client_id || '' = $1 and endpoint_id = $2 and (created_at, id) < ($3, $4)
  order by created_at desc, id desc limit 1 offset $5;

select created_at as at, id
  from deliveries
  where client_id || '' = $1 and task_id = $2
  order by created_at desc, id desc limit 1 offset $3;

select created_at as at, id
  from deliveries
  where client_id || '' = $1 and task_id = $2 and (created_at, id) < ($3, $4)
  order by created_at desc, id desc limit 1 offset $5;

select created_at as at, id
  from deliveries
  where endpoint_id = $1
  order by created_at desc, id desc limit 1 offset $2;

select delivery_id as "deliveryId", fence as "fence", started_at as "startedAt", duration_ms as "durationMs", outcome as "outcome",
    http_status as "httpStatus", error as "error", timings as "timings", key_id as "keyId", retry_after_seconds as "retryAfterSeconds",
    response_headers as "responseHeaders", response_excerpt as "responseExcerpt", remote_address as "remoteAddress"
  from attempts
  where delivery_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v))
  order by delivery_id, fence;

select distinct client_id as id
  from endpoints
  where client_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and follows = 1;

select distinct w.task_id as id
  from deliveries w
  where w.client_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and w.created_at > $2 and w.event_type = 'task.progress' and w.trigger = 'event' and coalesce(w.task_id,
            '') = any(array(select v.id
      from (select *
        from json_to_recordset($3::json) as j(id text)) v));

select e.id as id, e.body as body, t.traceparent as traceparent, t.tracestate as tracestate
  from events e left join lateral (select *
    from tasks t
    where t.id = e.task_id offset 0) t on true
  where e.id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

select e.task_id as "taskId", e.body as body
  from (select *
    from json_to_recordset($1::json) as j(id text, generation int8)) v cross join lateral (select *
    from events e
    where e.task_id = v.id and e.generation = v.generation and e.terminal = 1 offset 0) e
  where e.body <> '';

select exists (select 1
    from tasks
    where client_id = $1) or exists (select 1
    from deliveries
    where client_id = $2) or exists (select 1
    from endpoints
    where client_id = $3) or exists (select 1
    from events
    where client_id = $4) or exists (select 1
    from labels
    where client_id = $5) or exists (select 1
    from idempotency
    where client_id = $6) or exists (select 1
    from schedules
    where client_id = $7) or exists (select 1
    from keys
    where client_id = $8) as rest;

select fingerprint, task_ids as "taskIds"
  from idempotency
  where client_id = $1 and scope = $2 and key = $3 and expires_at > (extract(epoch from clock_timestamp()) * 1000)::int8;

select id
  from clients
  where id = $1 for no key update;

select id
  from clients
  where status = 'deleted' and id > $1
  order by id limit 1;

select id
  from deliveries
  where client_id = $1 and state <> 'running'
  order by created_at, id limit $2 for no key update skip locked;

select id
  from deliveries
  where client_id = $1 limit 1;

select id
  from endpoints
  where client_id = $1 and deleted_at is null
  order by created_at, id limit $2;

select id
  from tasks
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v))
  order by id for no key update;

select id
  from tombstones
  where id = $1 and client_id = coalesce($2::text, client_id) and expires_at > (extract(epoch from clock_timestamp()) * 1000)::int8;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where client_id = $1
    order by id desc limit $2) scanned
  where true
  order by id desc limit $3;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where id < $1
    order by id desc limit $2) scanned
  where actor = $3
  order by id desc limit $4;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where true
    order by id desc limit $1) scanned
  where action = $2
  order by id desc limit $3;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where true
    order by id desc limit $1) scanned
  where actor = $2
  order by id desc limit $3;

select id as "id", at as "at", actor as "actor", action as "action", target as "target", client_id as "clientId", details as "details",
    request_id as "requestId", remote_address as "remoteAddress"
  from (select *
    from audit_log
    where true
    order by id desc limit $1) scanned
  where true
  order by id desc limit $2;

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
    event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
    trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
    updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where id = $1 and client_id = coalesce($2::text, client_id);

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
    event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
    trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
    updated_at as "updatedAt", finished_at as "finishedAt"
  from deliveries
  where state = 'running' and (leased_until <= (extract(epoch from clock_timestamp()) * 1000)::int8 or leased_by <> coalesce($1,
      leased_by) and leased_by not like 'worker:%' ) limit $2;

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id = $1 and (state = 'completed' and fence = $2 and 'complete' = $3 or exists (select 1
      from idempotency i
      where i.client_id = tasks.client_id and i.scope = 'lease' and i.key = $4 and i.fingerprint = $5 and i.expires_at > (extract(epoch from clock_timestamp()) * 1000)::int8));

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id = $1 and client_id = coalesce($2::text, client_id);

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id = any(array( select id
      from (select id
        from tasks
        where state = 'pending' and start_by is not null and start_by <= $1 and fence = 0
        order by start_by limit $2) a union select id
      from (select id
        from tasks
        where state in ('pending', 'running') and deadline_at is not null and deadline_at <= $3 and (state = 'pending' or deadline_at <= $4)
        order by deadline_at limit $5) b union select id
      from (select id
        from tasks
        where state = 'running' and cancel_requested_at <= $6 limit $7) c));

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

select id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
    tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
    generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
    progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
    concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
    updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
    timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate"
  from tasks
  where state = 'running' and (leased_until <= (extract(epoch from clock_timestamp()) * 1000)::int8 or leased_by <> coalesce($1,
      leased_by) and leased_by not like 'worker:%' or leased_by like 'worker:%' and (started_at + timeout_seconds * 1000 <= (extract(epoch from clock_timestamp()) * 1000)::int8 or deadline_at <= (extract(epoch from clock_timestamp()) * 1000)::int8)) limit $2;

select id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
    created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt"
  from keys
  where client_id is not distinct from $1
  order by created_at, id;

select id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
    created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt"
  from keys
  where id = $1 and client_id is not distinct from $2 and revoked_at is null and (expires_at is null or expires_at > (extract(epoch from clock_timestamp()) * 1000)::int8) for no key update;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > $1 and body <> '' and client_id = $2
  order by client_id, seq limit $3;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > $1 and body <> '' and client_id = $2 and type in ($3)
  order by client_id, seq limit $4;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > $1 and body <> '' and client_id || '' = $2 and id in (select e.id
    from events e
    where e.task_id = $3 and e.terminal = 1
    union all select e.id
    from events e
    where e.task_id = $4 and e.terminal = 0)
  order by client_id, seq limit $5;

select id as "id", client_id as "clientId", task_id as "taskId", endpoint_id as "endpointId", type as "type", terminal as "terminal",
    generation as "generation", revision as "revision", seq as "seq", body as "body", created_at as "createdAt"
  from events
  where seq > $1 and body <> '' and seq <= $2 and client_id = $3 and type in ($4)
  order by client_id, seq limit $5;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where client_id = $1 and (created_at, id) > ($2, $3)
  order by created_at, id limit $4;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where client_id = $1 and true
  order by created_at, id limit $2;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where id = $1 and client_id = coalesce($2::text, client_id);

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where id = $1 and client_id = coalesce($2::text, client_id) for no key update;

select id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
    template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
    updated_at as "updatedAt", revision as "revision"
  from schedules
  where true and true
  order by created_at, id limit $1;

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
  where client_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and deleted_at is null;

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
  where deleted_at is null and client_id = $1
  order by created_at, id limit $2;

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
  where deleted_at is null and client_id = $1 and (created_at, id) > ($2, $3)
  order by created_at, id limit $4;

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
  where id = $1 and client_id = coalesce($2::text, client_id) and coalesce(deleted_at, 0) = 0;

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
  where id = $1 and client_id = coalesce($2::text, client_id) and coalesce(deleted_at, 0) = 0 for no key update;

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
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

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
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and coalesce(deleted_at, 0) = 0;

select id as "id", state as "state", alg as "alg", public_jwk as "publicJwk", private_jwk as "privateJwk", created_at as "createdAt",
    published_at as "publishedAt", activated_at as "activatedAt", retired_at as "retiredAt", wanted_at as "wantedAt"
  from signing_keys
  order by case state when 'active' then 0 when 'next' then 1 when 'retiring' then 2 else 3 end, created_at, id;

select id, body
  from events
  where id = $1 for no key update;

select id, cap, pace_ms as "paceMs", paced_at as "pacedAt", held_until as "heldUntil", filled, window_size as "windowSize",
    succeeded_at as "succeededAt", failures, probe_ms as "probeMs", blocked, blocked_since as "blockedSince"
  from lanes
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v))
  order by id for no key update skip locked;

select id, cap, pace_ms as "paceMs", paced_at as "pacedAt", held_until as "heldUntil", filled, window_size as "windowSize",
    succeeded_at as "succeededAt", failures, probe_ms as "probeMs", blocked, blocked_since as "blockedSince"
  from lanes
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and cap is not null
  order by id for no key update;

select id, name, status, created_at as "createdAt"
  from clients
  where id = $1 and status in ('active', 'suspended');

select id, name, status, created_at as "createdAt"
  from clients
  where status in ('active', 'suspended')
  order by created_at, id limit $1;

select id, name, status, created_at as "createdAt"
  from clients
  where status in ('active', 'suspended') and (created_at, id) > ($1, $2)
  order by created_at, id limit $3;

select id, octet_length(input) as bytes
  from ( select *
    from (select id, input
      from tasks
      where state = 'pending' and lane_id >= $1 and lane_id < $2
      order by lane_id, line, rank, id limit $3) p
    union all select *
    from (select id, input
      from tasks
      where state = 'running' and lane_id >= $4 and lane_id < $5 and cancel_requested_at is null limit $6) q) x;

select id, revision as mark
  from tasks
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

select id, seq as mark
  from clients
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

select id, url
  from endpoints
  where client_id = $1 and deleted_at is null;

select k.id as "id", k.client_id as "clientId", k.name as "name", k.hash as "hash", k.hint as "hint", k.scopes as "scopes",
    k.task_types as "taskTypes", k.created_at as "createdAt", k.expires_at as "expiresAt", k.revoked_at as "revokedAt",
    k.last_used_at as "lastUsedAt", (select c.status
    from clients c
    where c.id = k.client_id) as "clientStatus"
  from keys k
  where k.hash = $1;

select key
  from rate_limits
  where key = any(array(select v.key
      from (select *
        from json_to_recordset($1::json) as j(key text)) v))
  order by key for no key update;

select lane_id as "laneId", line as line, rank as rank, id as id
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > ($1, $2, $3, $4)
  order by lane_id, line, rank, id limit 1 offset 9999;

select lane_id as "laneId", line as line, rank as rank, id as id
  from tasks
  where state = 'pending' and (lane_id, line, rank, id) > ($1, $2, $3, $4) and lane_id < $5
  order by lane_id, line, rank, id limit 1 offset 9999;

select lane_id as id, count(*) as n
  from deliveries
  where state = 'running' and lane_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) group by lane_id;

select lane_id as id, count(*) as n
  from tasks
  where state = 'running' and lane_id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) group by lane_id;

select s.id as "id", s.client_id as "clientId", s.type as "type", s.cron as "cron", s.timezone as "timezone", s.catch_up as "catchUp",
    s.next_at as "nextAt", s.revision as "revision", length(s.template) as "size"
  from schedules s
  where s.next_at is not null and s.paused_at is null and s.type = any(array(select v.type
      from (select *
        from json_to_recordset($1::json) as j(type text)) v)) and (select c.status
    from clients c
    where c.id = s.client_id) = 'active' and s.client_id not in (select x.id
    from (select *
      from json_to_recordset($2::json) as j(id text)) x)
  order by s.next_at limit $3;

select seq
  from events
  where client_id = $1 and seq > $2
  order by seq limit 1 offset 9999;

select seq
  from events
  where id = $1 and (client_id = $2);

select v.id as "laneId", w.id as id, w.line as line, w.rank as rank
  from (select v.id
    from (select *
      from json_to_recordset($1::json) as j(id text)) v) v cross join lateral (select *
    from deliveries w
    where w.id = any(array(select id
        from (select x.id
          from deliveries x
          where x.lane_id = v.id and x.state = 'pending' and x.line = 0
          order by x.rank, x.id limit $2) h0
        union all select id
        from (select x.id
          from deliveries x
          where x.lane_id = v.id and x.state = 'pending' and x.line = 1
          order by x.rank, x.id limit $3) h1)) offset 0) w;

select v.id as "laneId", w.id as id, w.line as line, w.rank as rank
  from (select v.id
    from (select *
      from json_to_recordset($1::json) as j(id text)) v) v cross join lateral (select *
    from tasks w
    where w.id = any(array(select id
        from (select x.id
          from tasks x
          where x.lane_id = v.id and x.state = 'pending' and x.line = 0
          order by x.rank, x.id limit $2) h0
        union all select id
        from (select x.id
          from tasks x
          where x.lane_id = v.id and x.state = 'pending' and x.line = 1
          order by x.rank, x.id limit $3) h1)) offset 0) w;

select value
  from settings
  where name = $1;

select w.task_id as "taskId", w.state as state
  from (select *
    from json_to_recordset($1::json) as j(id text, generation int8)) v cross join lateral (select *
    from events e
    where e.task_id = v.id and e.generation = v.generation and e.terminal = 1 offset 0) e cross join lateral (select *
    from deliveries w
    where w.task_id = v.id and w.event_id = e.id offset 0) w;

select x.id
  from deliveries x
  where x.lane_id = $1 and x.state = 'pending'
  order by x.line, x.rank, x.id limit 1;

set local synchronous_commit = off;

update clients
  set seq = clients.seq + v.n
  from (select *
    from json_to_recordset($1::json) as j(client_id text, n int8)) v
  where clients.id = v.client_id and clients.id = any(array(select c.id
      from clients c
      where c.id = any(array(select x.client_id
          from (select *
            from json_to_recordset($2::json) as j(client_id text, n int8)) x))
      order by c.id for no key update))
  returning clients.id as id, clients.seq as seq;

update clients
  set status = $1
  where id = $2 and status in ('active', 'suspended')
  returning id, name, status, created_at as "createdAt";

update clients
  set status = 'deleted'
  where id = $1 and status in ('active', 'suspended')
  returning id, name, status, created_at as "createdAt";

update clients
  set status = 'erased', name = ''
  where id = $1 and status = 'deleted'
  returning id, name, status, created_at as "createdAt";

update deliveries
  set body = case when body is null then null else '' end, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      fence = fence + case when state in ('pending', 'running') then 1 else 0 end, canceled_reason = case when state in ('pending',
      'running') then 'taskDeleted' else canceled_reason end, finished_at = case when state in ('pending',
      'running') then (extract(epoch from clock_timestamp()) * 1000)::int8 else finished_at end, leased_until = null, leased_by = null,
      state = case when state in ('pending', 'running') then 'canceled' else state end
  where task_id = $1
  returning client_id as "clientId", lane_id as "laneId";

update deliveries
  set fence = deliveries.fence + 1, tries = deliveries.tries - 1, state = 'canceled', canceled_reason = v.why,
      finished_at = (extract(epoch from clock_timestamp()) * 1000)::int8, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      leased_until = null, leased_by = null
  from (select *
    from json_to_recordset($1::json) as j(delivery_id text, why text)) v
  where deliveries.id = v.delivery_id and deliveries.id = any(array(select y.delivery_id
      from (select *
        from json_to_recordset($2::json) as j(delivery_id text, why text)) y));

update deliveries
  set fence = fence + 1, state = 'canceled', canceled_reason = 'endpointDeleted',
      finished_at = (extract(epoch from clock_timestamp()) * 1000)::int8, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      leased_until = null, leased_by = null
  where coalesce(state, '') in ('pending', 'running') and id = any(array(select x.id
      from deliveries x
      where x.lane_id = $1 and x.state = 'pending'
      order by x.line, x.rank, x.id limit $2));

update deliveries
  set fence = fence + 1, state = 'canceled', canceled_reason = 'endpointDeleted',
      finished_at = (extract(epoch from clock_timestamp()) * 1000)::int8, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      leased_until = null, leased_by = null
  where coalesce(state, '') in ('pending', 'running') and id = any(array(select x.id
      from deliveries x
      where x.lane_id = $1 and x.state = 'running'));

update deliveries
  set fence = fence + 1, state = 'canceled', canceled_reason = 'superseded', finished_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8, leased_until = null, leased_by = null
  where id = $1 and coalesce(state, '') in ('pending', 'running');

update deliveries
  set leased_until = (extract(epoch from clock_timestamp()) * 1000)::int8 + $1
  from (select *
    from json_to_recordset($2::json) as j(work_id text, at_fence int8)) v
  where deliveries.id = v.work_id and deliveries.fence = v.at_fence and coalesce(deliveries.state,
      '') = 'running' and deliveries.id = any(array(select k.id
      from deliveries k
      where k.id = any(array(select y.work_id
          from (select *
            from json_to_recordset($3::json) as j(work_id text, at_fence int8)) y))
      order by k.id for no key update))
  returning deliveries.id as id, null as "cancelRequestedAt";

update deliveries
  set line = 1, rank = (extract(epoch from clock_timestamp()) * 1000)::int8, due_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      retry_after_at = null, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1 and coalesce(state, '') = 'pending'
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
      event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
      trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
      updated_at as "updatedAt", finished_at as "finishedAt";

update deliveries
  set state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8, retry_after_at = null
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and (select e.deleted_at
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
  set state = 'canceled', canceled_reason = 'superseded', fence = fence + 1, finished_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where coalesce(state, '') = 'pending' and id = any(array(select x.id
      from deliveries x
      where x.id = any(array(select k.id
          from (select *
            from json_to_recordset($1::json) as j(task_id text, endpoint_id text)) v cross join lateral (select *
            from deliveries k
            where k.task_id = v.task_id and k.endpoint_id || '' = v.endpoint_id and k.event_type = 'task.progress' and k.state || '' = 'pending' offset 0) k))
      order by x.id for no key update));

update deliveries
  set state = 'running', fence = fence + 1, tries = tries + 1, leased_until = (extract(epoch from clock_timestamp()) * 1000)::int8 + $1,
      leased_by = $2, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8, retry_after_at = null
  where id = any(array(select x.id
      from deliveries x
      where x.id = any(array(select v.id
          from (select *
            from json_to_recordset($3::json) as j(id text)) v)) and coalesce(x.state, '') = 'pending' for no key update skip locked))
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", event_id as "eventId",
      event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", url as "url", body as "body", retry_schedule as "retrySchedule",
      trigger as "trigger", retry_after_at as "retryAfterAt", canceled_reason as "canceledReason", created_at as "createdAt",
      updated_at as "updatedAt", finished_at as "finishedAt";

update deliveries
  set state = v.wish, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8, leased_until = null, leased_by = null,
      tries = deliveries.tries - v.back, line = case when v.wish = 'pending' then 1 else deliveries.line end,
      rank = case when v.wish = 'pending' then (extract(epoch from clock_timestamp()) * 1000)::int8 + v.delay_ms else deliveries.rank end,
      due_at = case when v.wish = 'pending' then (extract(epoch from clock_timestamp()) * 1000)::int8 + v.delay_ms else deliveries.due_at end,
      retry_after_at = case when v.hold_ms is null then null else (extract(epoch from clock_timestamp()) * 1000)::int8 + v.hold_ms end,
      finished_at = case when v.wish = 'pending' then null else (extract(epoch from clock_timestamp()) * 1000)::int8 end
  from (select *
    from json_to_recordset($1::json) as j(delivery_id text, at_fence int8, wish text, delay_ms int8, hold_ms int8, back int8)) v
  where deliveries.id = v.delivery_id and deliveries.fence = v.at_fence and coalesce(deliveries.state,
      '') = 'running' and deliveries.id = any(array(select k.id
      from deliveries k
      where k.id = any(array(select y.delivery_id
          from (select *
            from json_to_recordset($2::json) as j(delivery_id text, at_fence int8, wish text, delay_ms int8, hold_ms int8, back int8)) y))
      order by k.id for no key update))
  returning deliveries.id as "id", deliveries.client_id as "clientId", deliveries.lane_id as "laneId", deliveries.state as "state",
      deliveries.line as "line", deliveries.rank as "rank", deliveries.due_at as "dueAt", deliveries.tries as "tries",
      deliveries.max_tries as "maxTries", deliveries.fence as "fence", deliveries.leased_until as "leasedUntil", deliveries.leased_by as "leasedBy",
      deliveries.event_id as "eventId", deliveries.event_type as "eventType", deliveries.task_id as "taskId", deliveries.endpoint_id as "endpointId",
      deliveries.url as "url", deliveries.body as "body", deliveries.retry_schedule as "retrySchedule", deliveries.trigger as "trigger",
      deliveries.retry_after_at as "retryAfterAt", deliveries.canceled_reason as "canceledReason", deliveries.created_at as "createdAt",
      deliveries.updated_at as "updatedAt", deliveries.finished_at as "finishedAt";

update endpoints
  set deleted_at = (extract(epoch from clock_timestamp()) * 1000)::int8, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      headers = null, secret = '', previous_secret = null, revision = revision + 1
  where id = $1 and client_id = coalesce($2::text, client_id) and coalesce(deleted_at, 0) = 0
  returning client_id as "clientId";

update endpoints
  set description = $1, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
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
  set disabled_at = (extract(epoch from clock_timestamp()) * 1000)::int8, disabled_reason = $1, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
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
  set disabled_at = (extract(epoch from clock_timestamp()) * 1000)::int8, disabled_reason = v.reason, revision = endpoints.revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  from (select *
    from json_to_recordset($1::json) as j(endpoint_id text, at_url text, reason text)) v
  where endpoints.id = v.endpoint_id and (v.at_url is null or endpoints.url = v.at_url) and coalesce(endpoints.deleted_at,
      0) = 0 and endpoints.id = any(array(select y.endpoint_id
      from (select *
        from json_to_recordset($2::json) as j(endpoint_id text, at_url text,
            reason text)) y)) and (endpoints.disabled_at is null or endpoints.disabled_reason = 'failing' and v.reason <> 'failing') and (v.reason <> 'failing' or endpoints.failing_since <= (extract(epoch from clock_timestamp()) * 1000)::int8 - 432000000)
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
  set failing_since = (extract(epoch from clock_timestamp()) * 1000)::int8
  from (select *
    from json_to_recordset($1::json) as j(endpoint_id text, at_url text)) v
  where endpoints.id = v.endpoint_id and (v.at_url is null or endpoints.url = v.at_url) and endpoints.failing_since is null and endpoints.id = any(array(select y.endpoint_id
      from (select *
        from json_to_recordset($2::json) as j(endpoint_id text, at_url text)) y));

update endpoints
  set failing_since = null, failing_told_at = null, disabled_at = null, disabled_reason = null, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1
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
  set failing_since = null, failing_told_at = null, last_success_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and (failing_since is not null or last_success_at is null or last_success_at < (extract(epoch from clock_timestamp()) * 1000)::int8 - 1000);

update endpoints
  set headers = $1, max_per_minute = $2, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $3
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
  set max_per_minute = $1, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
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
  set paused_at = coalesce(paused_at, (extract(epoch from clock_timestamp()) * 1000)::int8), revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1
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
  set paused_at = null, failing_since = null, failing_told_at = null, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1
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
  set secret = $1, secret_hint = $2, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $3
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
  set url = $1, failing_since = null, failing_told_at = null, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
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
  set url = $1, failing_since = null, failing_told_at = null, verified_at = null, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
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
  set url = $1, headers = $2, failing_since = null, failing_told_at = null, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $3
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
  set verification_delivery_id = $1, verification_error = null, verification_expires_at = $2
  where id = $3
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
  set verification_error = $1
  where verification_delivery_id = $2 and id = $3 and deleted_at is null;

update endpoints
  set verified_at = (extract(epoch from clock_timestamp()) * 1000)::int8, first_verified_at = coalesce(first_verified_at,
      (extract(epoch from clock_timestamp()) * 1000)::int8), allowed_rate = $1, verification_delivery_id = null, verification_error = null,
      verification_expires_at = null, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where verification_delivery_id = $2 and id = $3 and deleted_at is null
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
  set verified_at = (extract(epoch from clock_timestamp()) * 1000)::int8, first_verified_at = coalesce(first_verified_at,
      (extract(epoch from clock_timestamp()) * 1000)::int8), verification_delivery_id = null, verification_error = null,
      verification_expires_at = null, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1
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
  set verified_at = null, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1
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
  where id = any(array( select e.id
      from events e
      where e.task_id = $1 and e.terminal = 1
      union all select e.id
      from events e
      where e.task_id = $2 and e.terminal = 0));

update keys
  set expires_at = $1
  where id = $2
  returning id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
      created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt";

update keys
  set expires_at = case when expires_at < (extract(epoch from clock_timestamp()) * 1000)::int8 + $1 then expires_at else (extract(epoch from clock_timestamp()) * 1000)::int8 + $2 end
  where id = $3;

update keys
  set last_used_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = any(array(select x.id
      from keys x
      where x.id = any(array(select v.id
          from (select *
            from json_to_recordset($1::json) as j(id text)) v)) and coalesce(x.last_used_at,
                0) <= (extract(epoch from clock_timestamp()) * 1000)::int8 - $2 for no key update skip locked));

update keys
  set revoked_at = coalesce(revoked_at, (extract(epoch from clock_timestamp()) * 1000)::int8)
  where id = $1 and client_id is not distinct from $2
  returning id as "id", client_id as "clientId", name as "name", hash as "hash", hint as "hint", scopes as "scopes", task_types as "taskTypes",
      created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt", last_used_at as "lastUsedAt";

update lanes
  set filled = 0, cap = v.cap, pace_ms = v.pace_ms, held_until = v.held_until, window_size = v.window_size, succeeded_at = v.succeeded_at,
      failures = v.failures, probe_ms = v.probe_ms, blocked = v.blocked, blocked_since = v.blocked_since
  from (select *
    from json_to_recordset($1::json) as j(lane_id text, cap int8, pace_ms int8, held_until int8, window_size int8, succeeded_at int8,
        failures int8, probe_ms int8, blocked int8, blocked_since int8)) v
  where lanes.id = v.lane_id and lanes.id = any(array(select y.lane_id
      from (select *
        from json_to_recordset($2::json) as j(lane_id text, cap int8, pace_ms int8, held_until int8, window_size int8, succeeded_at int8,
            failures int8, probe_ms int8, blocked int8, blocked_since int8)) y));

update lanes
  set filled = 1
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v));

update lanes
  set paced_at = v.at
  from (select *
    from json_to_recordset($1::json) as j(lane_id text, at int8)) v
  where lanes.id = v.lane_id and lanes.id = any(array(select y.lane_id
      from (select *
        from json_to_recordset($2::json) as j(lane_id text, at int8)) y));

update rate_limits
  set points = rate_limits.points - v.points
  from (select *
    from json_to_recordset($1::json) as j(key text, points int8, expire int8)) v
  where rate_limits.key = v.key and rate_limits.expire = v.expire and rate_limits.points >= v.points and rate_limits.key = any(array(select y.key
      from (select *
        from json_to_recordset($2::json) as j(key text, points int8, expire int8)) y));

update rate_limits
  set points = v.most
  from (select *
    from json_to_recordset($1::json) as j(key text, most int8)) v
  where rate_limits.key = v.key and rate_limits.points > v.most and rate_limits.key = any(array(select y.key
      from (select *
        from json_to_recordset($2::json) as j(key text, most int8)) y));

update schedules
  set catch_up = $1, next_at = $2, paused_at = null, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $3
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set catch_up = $1, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set next_at = $1, paused_at = coalesce(paused_at, (extract(epoch from clock_timestamp()) * 1000)::int8), revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set next_at = v.upcoming_at, last_at = coalesce(v.latest_at, schedules.last_at)
  from (select *
    from json_to_recordset($1::json) as j(schedule_id text, known_at int8, known_revision int8, upcoming_at int8, latest_at int8)) v
  where schedules.id = v.schedule_id and schedules.next_at = v.known_at and schedules.revision = v.known_revision and coalesce(schedules.paused_at,
      0) = 0 and schedules.id = any(array(select k.id
      from schedules k
      where k.id = any(array(select y.schedule_id
          from (select *
            from json_to_recordset($2::json) as j(schedule_id text, known_at int8, known_revision int8, upcoming_at int8, latest_at int8)) y))
      order by k.id for no key update))
  returning schedules.id as "id", schedules.client_id as "clientId", schedules.type as "type", schedules.template as "template";

update schedules
  set paused_at = coalesce(paused_at, (extract(epoch from clock_timestamp()) * 1000)::int8), revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $1
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update schedules
  set template = $1, revision = revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = $2
  returning id as "id", client_id as "clientId", type as "type", cron as "cron", timezone as "timezone", catch_up as "catchUp",
      template as "template", paused_at as "pausedAt", next_at as "nextAt", last_at as "lastAt", created_at as "createdAt",
      updated_at as "updatedAt", revision as "revision";

update signing_keys
  set wanted_at = coalesce(wanted_at, (extract(epoch from clock_timestamp()) * 1000)::int8)
  where state = 'next';

update tasks
  set fence = fence + case when state = 'pending' then 1 else 0 end,
      cancel_requested_at = case when state = 'running' then (extract(epoch from clock_timestamp()) * 1000)::int8 else cancel_requested_at end,
      finished_at = case when state = 'pending' then (extract(epoch from clock_timestamp()) * 1000)::int8 else finished_at end,
      state = case when state = 'pending' then 'canceled' else state end, revision = revision + 1,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and client_id = coalesce($2::text,
            client_id) and (state = 'pending' or state = 'running' and cancel_requested_at is null)
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
      generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
      progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
      concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
      updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
      timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate";

update tasks
  set leased_until = (extract(epoch from clock_timestamp()) * 1000)::int8 + $1
  from (select *
    from json_to_recordset($2::json) as j(work_id text, at_fence int8)) v
  where tasks.id = v.work_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running' and tasks.id = any(array(select k.id
      from tasks k
      where k.id = any(array(select y.work_id
          from (select *
            from json_to_recordset($3::json) as j(work_id text, at_fence int8)) y))
      order by k.id for no key update))
  returning tasks.id as id, tasks.cancel_requested_at as "cancelRequestedAt";

update tasks
  set progress = case when v.progress > tasks.progress then v.progress else tasks.progress end, progress_message = v.message,
      revision = tasks.revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  from (select *
    from json_to_recordset($1::json) as j(task_id text, at_fence int8, progress float8, message text)) v
  where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running' and tasks.id = any(array(select k.id
      from tasks k
      where k.id = any(array(select y.task_id
          from (select *
            from json_to_recordset($2::json) as j(task_id text, at_fence int8, progress float8, message text)) y))
      order by k.id for no key update))
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
      due_at = (extract(epoch from clock_timestamp()) * 1000)::int8, line = 0,
      rank = (extract(epoch from clock_timestamp()) * 1000)::int8 - priority * 1000,
      updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8
  where id = any(array(select v.id
      from (select *
        from json_to_recordset($1::json) as j(id text)) v)) and client_id = coalesce($2::text, client_id) and state in ('failed', 'canceled')
  returning id, client_id as "clientId", lane_id as "laneId", type, rank, updated_at as "updatedAt";

update tasks
  set state = 'running', fence = fence + 1, tries = tries + 1, revision = revision + 1,
      leased_until = (extract(epoch from clock_timestamp()) * 1000)::int8 + $1, leased_by = $2,
      started_at = (extract(epoch from clock_timestamp()) * 1000)::int8, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8,
      progress = 0, progress_message = null
  where id = any(array(select x.id
      from tasks x
      where x.id = any(array(select v.id
          from (select *
            from json_to_recordset($3::json) as j(id text)) v)) and coalesce(x.state, '') = 'pending' for no key update skip locked))
  returning id as "id", client_id as "clientId", lane_id as "laneId", state as "state", line as "line", rank as "rank", due_at as "dueAt",
      tries as "tries", max_tries as "maxTries", fence as "fence", leased_until as "leasedUntil", leased_by as "leasedBy", type as "type",
      generation as "generation", revision as "revision", input as "input", result as "result", error as "error", last_error as "lastError",
      progress as "progress", progress_message as "progressMessage", metadata as "metadata", priority as "priority",
      concurrency_key as "concurrencyKey", callback as "callback", batch_id as "batchId", schedule_id as "scheduleId", created_at as "createdAt",
      updated_at as "updatedAt", started_at as "startedAt", finished_at as "finishedAt", start_by as "startBy", deadline_at as "deadlineAt",
      timeout_seconds as "timeoutSeconds", cancel_requested_at as "cancelRequestedAt", traceparent as "traceparent", tracestate as "tracestate";

update tasks
  set state = 'running', fence = tasks.fence + 1, tries = tasks.tries + 1
  from (select *
    from json_to_recordset($1::json) as j(task_id text, at_fence int8)) v
  where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'pending' and tasks.id = any(array(select y.task_id
      from (select *
        from json_to_recordset($2::json) as j(task_id text, at_fence int8)) y))
  returning tasks.id as id, tasks.fence as fence;

update tasks
  set state = case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end,
      revision = tasks.revision + 1, updated_at = (extract(epoch from clock_timestamp()) * 1000)::int8, leased_until = null, leased_by = null,
      fence = tasks.fence + case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'canceled' then 1 else 0 end,
      tries = tasks.tries - v.back,
      started_at = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'failed' and v.back = tasks.tries then null else tasks.started_at end,
      line = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then 1 else tasks.line end,
      rank = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then (extract(epoch from clock_timestamp()) * 1000)::int8 + v.delay_ms else tasks.rank end,
      due_at = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then (extract(epoch from clock_timestamp()) * 1000)::int8 + v.delay_ms else tasks.due_at end,
      finished_at = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' then null else (extract(epoch from clock_timestamp()) * 1000)::int8 end,
      progress = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'completed' then 100 else tasks.progress end,
      result = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'completed' then v.result else null end,
      error = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'failed' then v.error else null end,
      last_error = case when case when tasks.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end = 'pending' and v.error is not null then v.error else tasks.last_error end
  from (select *
    from json_to_recordset($1::json) as j(task_id text, at_fence int8, wish text, delay_ms int8, back int8, result text, error text)) v
  where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running' and tasks.id = any(array(select k.id
      from tasks k
      where k.id = any(array(select y.task_id
          from (select *
            from json_to_recordset($2::json) as j(task_id text, at_fence int8, wish text, delay_ms int8, back int8, result text, error text)) y))
      order by k.id for no key update))
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
  where seq = any(array(select x.seq
      from turns x
      where x.alarm_at <= $1
      order by x.alarm_at limit 500 for no key update skip locked));

with recursive line(queue, client_id, n) as ( select q.id, (select t.client_id
      from turns t
      where t.queue = q.id and t.client_id > q.since and t.turn is not null
      order by t.client_id limit 1), 0
    from (select *
      from json_to_recordset($1::json) as j(id text, cap int8, since text)) q
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
    where l.client_id is not null and l.n + 1 < $2) select t.seq as seq, t.lane_id as "laneId", t.queue as queue, t.client_id as "clientId",
        t.turn as turn, l.id as known, l.cap as cap, l.filled as filled, l.held_until as "heldUntil", l.window_size as "windowSize",
        l.succeeded_at as "succeededAt", l.probe_ms as "probeMs", null as "alarmAt", null as now
  from line c cross join lateral (select *
    from turns t
    where t.seq = any(array(select x.seq
        from turns x
        where x.queue = c.queue and x.client_id = c.client_id and x.turn is not null
        order by x.turn, x.seq limit $3)) offset 0) t left join lateral (select *
    from lanes l
    where l.id = t.lane_id offset 0) l on true
  union all select null, null, null, null, null, null, null, null, null, null, null, null, (select a.alarm_at
    from turns a
    where a.alarm_at is not null
    order by a.alarm_at limit 1), (extract(epoch from clock_timestamp()) * 1000)::int8;

with recursive line(queue, client_id, n) as ( select q.id, (select t.client_id
      from turns t
      where t.queue = q.id and t.client_id > q.since and t.turn is not null
      order by t.client_id limit 1), 0
    from (select *
      from json_to_recordset($1::json) as j(id text, cap int8, since text)) q
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
    where l.client_id is not null and l.n + 1 < $2) select t.seq as seq, t.lane_id as "laneId", t.queue as queue, t.client_id as "clientId",
        t.turn as turn, l.id as known, l.cap as cap, l.filled as filled, l.held_until as "heldUntil", l.window_size as "windowSize",
        l.succeeded_at as "succeededAt", l.probe_ms as "probeMs", null as "alarmAt", null as now
  from line c cross join lateral (select *
    from turns t
    where t.seq = any(array(select x.seq
        from turns x
        where x.queue = c.queue and x.client_id = c.client_id and x.turn is not null
        order by x.turn, x.seq limit $3)) offset 0) t left join lateral (select *
    from lanes l
    where l.id = t.lane_id offset 0) l on true
  union all select null, null, null, null, null, null, null, null, null, null, null, null, (select a.alarm_at
    from turns a
    where a.alarm_at is not null
    order by a.alarm_at limit 1), (extract(epoch from clock_timestamp()) * 1000)::int8;

with scanned as (select id, created_at
    from deliveries
    where client_id = $1
    order by created_at desc, id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in ($3)) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id = $1
    order by created_at desc, id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $3) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id = $1 and (created_at, id) < ($2, $3)
    order by created_at desc, id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in ($5)) = 1
    order by s.created_at desc, s.id desc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id = $1 and (created_at, id) < ($2, $3)
    order by created_at desc, id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id = $1 and created_at < $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id = $1 and created_at >= $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and endpoint_id = $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.event_type = $4) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and endpoint_id = $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in ($4)) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and endpoint_id = $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and endpoint_id = $2 and (created_at, id) < ($3, $4)
    order by created_at desc, id desc limit $5), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in ($6)) = 1
    order by s.created_at desc, s.id desc limit $7) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and endpoint_id = $2 and (created_at, id) < ($3, $4)
    order by created_at desc, id desc limit $5), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and task_id = $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in ($4)) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and task_id = $2
    order by created_at desc, id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and task_id = $2 and (created_at, id) < ($3, $4)
    order by created_at desc, id desc limit $5), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.state in ($6)) = 1
    order by s.created_at desc, s.id desc limit $7) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where client_id || '' = $1 and task_id = $2 and (created_at, id) < ($3, $4)
    order by created_at desc, id desc limit $5), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where endpoint_id = $1
    order by created_at desc, id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from deliveries x
      where x.id = s.id and x.event_type = $3) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where l.name = $1 and l.value = $2 and l.client_id = $3
    order by l.created_at asc, l.task_id asc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at asc, s.id asc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
  order by created_at asc, id asc;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = $1 and l.value = $2 and l.client_id = $3
    order by l.created_at desc, l.task_id desc limit $4) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select l.task_id as id, l.created_at
    from labels l
    where l.name = $1 and l.value = $2 and l.client_id = $3
    order by l.created_at desc, l.task_id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.batch_id = $5) = 1
    order by s.created_at desc, s.id desc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where l.name = $1 and l.value = $2 and l.client_id = $3
    order by l.created_at desc, l.task_id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.state in ($5)) = 1
    order by s.created_at desc, s.id desc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where l.name = $1 and l.value = $2 and l.client_id = $3
    order by l.created_at desc, l.task_id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.batch_id = $1 and t.client_id || '' = $2
    order by t.created_at desc, t.id desc limit $3) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.batch_id = $1 and t.client_id || '' = $2
    order by t.created_at desc, t.id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.batch_id = $4) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1
    order by t.created_at asc, t.id asc limit $2) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at desc, s.id desc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1
    order by t.created_at asc, t.id asc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = $3) = 1
    order by s.created_at asc, s.id asc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1
    order by t.created_at asc, t.id asc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at asc, s.id asc limit $3) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1
    order by t.created_at desc, t.id desc limit $2) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1
    order by t.created_at desc, t.id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.state in ($3)) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1
    order by t.created_at desc, t.id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.state in ($3, $4)) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1
    order by t.created_at desc, t.id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = $3) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1
    order by t.created_at desc, t.id desc limit $2), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $3) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1 and (t.created_at, t.id) < ($2, $3)
    order by t.created_at desc, t.id desc limit $4) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at asc, s.id asc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1 and (t.created_at, t.id) < ($2, $3)
    order by t.created_at desc, t.id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = $5) = 1
    order by s.created_at desc, s.id desc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1 and (t.created_at, t.id) < ($2, $3)
    order by t.created_at desc, t.id desc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1 and (t.created_at, t.id) > ($2, $3)
    order by t.created_at asc, t.id asc limit $4) select s.id as id, s.created_at as at, (select count(*)
    from scanned) as n
  from scanned s
  order by s.created_at desc, s.id desc limit 1;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1 and (t.created_at, t.id) > ($2, $3)
    order by t.created_at asc, t.id asc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id and x.type = $5) = 1
    order by s.created_at asc, s.id asc limit $6) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1 and (t.created_at, t.id) > ($2, $3)
    order by t.created_at asc, t.id asc limit $4), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at asc, s.id asc limit $5) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
  order by created_at asc, id asc;

with scanned as (select t.id, t.created_at
    from tasks t
    where t.client_id = $1 and t.created_at < $2
    order by t.created_at desc, t.id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    where t.client_id = $1 and t.created_at > $2
    order by t.created_at desc, t.id desc limit $3), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $4) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
    order by t.created_at desc, t.id desc limit $1), fitting as materialized ( select s.id
    from scanned s
    where (select 1
      from tasks x
      where x.id = s.id) = 1
    order by s.created_at desc, s.id desc limit $2) select id as "id", client_id as "clientId", lane_id as "laneId", state as "state",
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
