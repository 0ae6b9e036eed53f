-- name: publish_message
-- Enqueue a message.
insert into trace.queue_messages (body) values (%(body)s);

-- name: move_dead_messages
-- Move messages that were delivered too often to the dead messages.
with worn as (
    delete from trace.queue_messages where message_id in (
        select message_id from trace.queue_messages
        where visible_at <= now() and deliveries >= %(max_deliveries)s
        order by visible_at limit %(limit)s for update skip locked)
    returning message_id, body, enqueued_at, deliveries)
insert into trace.queue_dead (message_id, body, enqueued_at, deliveries)
select message_id, body, enqueued_at, deliveries from worn;

-- name: receive_messages
-- Deliver the oldest visible messages, and hide them for a while.
with picked as (
    select message_id from trace.queue_messages
    where visible_at <= now() and deliveries < %(max_deliveries)s
    order by visible_at, message_id limit %(limit)s for update skip locked)
update trace.queue_messages m
set visible_at = now() + make_interval(secs => %(visibility_seconds)s),
    deliveries = m.deliveries + 1, receipt = gen_random_uuid()
from picked where m.message_id = picked.message_id
returning m.body, m.receipt::text as receipt, m.deliveries;

-- name: ack_messages
-- Delete delivered messages.
delete from trace.queue_messages where receipt = any(%(receipts)s);

-- name: hide_messages
-- Hide delivered messages for longer.
update trace.queue_messages set visible_at = now() + make_interval(secs => %(seconds)s)
where receipt = any(%(receipts)s);

-- name: requeue_messages
-- Make delivered messages visible again after a delay.
update trace.queue_messages set visible_at = now() + make_interval(secs => %(seconds)s), receipt = null
where receipt = any(%(receipts)s);

-- name: dead_messages
-- Number of dead messages.
select count(*) as n from trace.queue_dead;
