-- Writing by SQL: functions, what happens to rows that are changed by hand, and the changes of
-- which proxies tell the cache. docs: src/ARCHITECTURE.md

-- Keys that SQL changed and that the cache was not told of yet. A row is written in the transaction
-- of the change. Proxies' own writes leave none.
CREATE TABLE freshet.change (
    -- Who has read all that a snapshot shows goes on with the transactions that were open in it or
    -- had not begun, and so passes over no rows again that were deleted since.
    xact    bigint   NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    id      bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    db      smallint NOT NULL,
    key     bytea    NOT NULL,
    version bigint   NOT NULL,
    event   text,                       -- as keyspace notifications name it
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xact, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 100000);

-- Which proxy tells the cache, and until when without news from it.
CREATE TABLE freshet.teller (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    holder    bigint,
    until     timestamptz NOT NULL DEFAULT '-infinity',
    is_asleep boolean NOT NULL DEFAULT false    -- it looks seldom, and waits to be woken
) WITH (fillfactor = 10);
INSERT INTO freshet.teller DEFAULT VALUES;

-- More changes than this are not kept: from then on nothing is noted ('full'), until a proxy has
-- had it noted again ('voiding') and then has voided the whole cache.
CREATE TABLE freshet.change_limit (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    state     text   NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'full', 'voiding')),
    changes   bigint NOT NULL DEFAULT 1000000
);
INSERT INTO freshet.change_limit DEFAULT VALUES;

-- The version of freshet.purge for those who hold no lock that keeps it from rising: what a
-- sequence says is new at once, in every transaction, whatever its isolation.
CREATE SEQUENCE freshet.purged MINVALUE 0;
SELECT setval('freshet.purged', (SELECT version FROM freshet.purge));

CREATE FUNCTION freshet.follow_purge() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM setval('freshet.purged', NEW.version);
    RETURN NULL;
END $$;
CREATE TRIGGER follow_purge AFTER UPDATE ON freshet.purge
    FOR EACH ROW WHEN (NEW.version > OLD.version) EXECUTE FUNCTION freshet.follow_purge();

-- Notes that SQL has made `version` of a key.
CREATE FUNCTION freshet.note_change(db smallint, key bytea, version bigint, event text) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    number bigint;
BEGIN
    IF (SELECT l.state = 'full' FROM freshet.change_limit l) THEN
        -- Until this transaction ends nobody ends that state.
        PERFORM FROM freshet.change_limit l WHERE l.state = 'full' FOR SHARE;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO freshet.change (db, key, version, event) VALUES ($1, $2, $3, $4) RETURNING id INTO number;
    IF (SELECT t.is_asleep FROM freshet.teller t) THEN
        PERFORM pg_notify('freshet_change', '');
    END IF;
    IF number % 1000 = 0 THEN
        UPDATE freshet.change_limit l SET state = 'full'
          FROM (SELECT FROM freshet.change_limit FOR UPDATE SKIP LOCKED) free
         WHERE l.state = 'open'
           AND number - (SELECT c.id FROM freshet.change c ORDER BY c.xact, c.id LIMIT 1) >= l.changes;
    END IF;
END $$;

-- Refuses what no proxy would take as a key.
CREATE FUNCTION freshet.check_key(db integer, key bytea) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF $1 IS NULL OR $1 NOT BETWEEN 0 AND 15 THEN
        RAISE EXCEPTION 'ERR DB index is out of range' USING ERRCODE = 'FR004';
    ELSIF $2 IS NULL THEN
        RAISE EXCEPTION 'ERR the key is NULL' USING ERRCODE = 'FR004';
    ELSIF octet_length($2) > 2600 THEN
        RAISE EXCEPTION 'ERR the key is longer than 2600 bytes, which PostgreSQL cannot index' USING ERRCODE = 'FR004';
    END IF;
END $$;

-- The row of a key, locked, as it counts now: without a kind if the key is absent. One that is
-- missing is created, as a tombstone of the version that no row means, or else nothing is returned.
CREATE FUNCTION freshet.lock_key(db integer, key bytea, is_created boolean) RETURNS freshet.keys
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    locked freshet.keys;
BEGIN
    PERFORM freshet.check_key($1, $2);
    LOOP
        SELECT * INTO locked FROM freshet.keys k WHERE k.db = $1 AND k.key = $2 FOR UPDATE;
        EXIT WHEN FOUND OR NOT $3;
        INSERT INTO freshet.keys (db, key, version, expires_ms)
        SELECT $1, $2, s.last_value, freshet.now_ms() FROM freshet.purged s
            ON CONFLICT DO NOTHING;
    END LOOP;
    IF locked.kind IS NULL OR locked.expires_ms <= freshet.now_ms() THEN
        locked.kind := NULL;
        locked.expires_ms := NULL;
        -- Behind the lock: a row that was purged a moment ago may have had a higher version.
        locked.version := greatest(locked.version, (SELECT s.last_value FROM freshet.purged s));
    END IF;
    RETURN locked;
END $$;

-- Writes a locked row as it is given, in the next version.
CREATE FUNCTION freshet.save_key(changed freshet.keys, event text) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    UPDATE freshet.keys k
       SET kind = changed.kind, version = changed.version + 1, expires_ms = changed.expires_ms,
           value = changed.value, content = changed.content, size = changed.size, meta = changed.meta
     WHERE k.db = changed.db AND k.key = changed.key;
    PERFORM freshet.note_change(changed.db, changed.key, changed.version + 1, $2);
END $$;

-- Writes a locked row as that of a deleted key. Its elements are left to the sweep.
CREATE FUNCTION freshet.save_deletion(deleted freshet.keys, event text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    deleted.kind := NULL;
    deleted.expires_ms := freshet.now_ms();
    deleted.value := NULL;
    deleted.size := NULL;
    deleted.meta := NULL;
    PERFORM freshet.save_key(deleted, $2);
END $$;

-- Writes a locked row whose collection has lost elements, or the deletion if it has none any more.
CREATE FUNCTION freshet.save_removal(less freshet.keys, event text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF less.size > 0 THEN
        PERFORM freshet.save_key(less, $2);
    ELSE
        PERFORM freshet.save_deletion(less, $2);
        PERFORM freshet.note_change(less.db, less.key, less.version + 1, 'del');
    END IF;
END $$;

CREATE FUNCTION freshet.wrong_type() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'WRONGTYPE Operation against a key holding the wrong kind of value' USING ERRCODE = 'FR003';
END $$;

-- The same as lock_key, for a collection of a kind: an absent key becomes an empty one.
CREATE FUNCTION freshet.lock_collection(db integer, key bytea, kind smallint) RETURNS freshet.keys
LANGUAGE plpgsql
AS $$
DECLARE
    locked freshet.keys := freshet.lock_key($1, $2, true);
BEGIN
    IF locked.kind IS NULL THEN
        IF locked.content IS NOT NULL THEN
            INSERT INTO freshet.garbage VALUES (locked.content) ON CONFLICT DO NOTHING;
        END IF;
        locked.kind := $3;
        locked.value := NULL;
        locked.content := nextval('freshet.content_ids');
        locked.size := 0;
        locked.meta := '';
    ELSIF locked.kind <> $3 THEN
        PERFORM freshet.wrong_type();
    END IF;
    RETURN locked;
END $$;

-- The same, to take elements out: nothing if the key is absent.
CREATE FUNCTION freshet.lock_present(db integer, key bytea, kind smallint) RETURNS freshet.keys
LANGUAGE plpgsql
AS $$
DECLARE
    locked freshet.keys := freshet.lock_key($1, $2, false);
BEGIN
    IF locked.kind IS NULL THEN
        RETURN NULL;
    ELSIF locked.kind <> $3 THEN
        PERFORM freshet.wrong_type();
    END IF;
    RETURN locked;
END $$;

-- A field as it is stored: one longer than 1024 bytes by its beginning and its digest.
CREATE FUNCTION freshet.stored_field(field bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION 'ERR a field, member or value is NULL' USING ERRCODE = 'FR004';
    END IF;
    RETURN CASE WHEN octet_length($1) <= 1024 THEN $1 ELSE substr($1, 1, 1024) || sha256($1) END;
END $$;

-- Beside it the whole of one that is not stored whole.
CREATE FUNCTION freshet.stored_name(field bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE
AS $$ SELECT CASE WHEN octet_length($1) > 1024 THEN $1 END $$;

-- Deletes elements of a locked row; how many there were.
CREATE FUNCTION freshet.take_elements(content bigint, fields bytea[]) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    gone bigint;
BEGIN
    DELETE FROM freshet.element e USING (SELECT DISTINCT freshet.stored_field(u) AS field FROM unnest($2) u) f
     WHERE e.content = $1 AND e.field = f.field;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- A big-endian number of eight bytes in what a type keeps beside its elements.
CREATE FUNCTION freshet.number_at(meta bytea, place integer) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$ SELECT ('x' || encode(substr($1, $2 + 1, 8), 'hex'))::bit(64)::bigint $$;

CREATE FUNCTION freshet.to_bytes(texts text[]) RETURNS bytea[]
LANGUAGE sql IMMUTABLE
AS $$ SELECT array_agg(convert_to(u.one, 'UTF8') ORDER BY u.ord) FROM unnest($1) WITH ORDINALITY AS u (one, ord) $$;

-- What follows is for applications. Each function works in the caller's transaction, is undone with
-- it, and leaves what the command of its name leaves. (The name tells the triggers below that versions and
-- changes are taken care of, as it does of proxies. A setting of our own needs a superuser to be set by a function.)

CREATE FUNCTION freshet.set(key bytea, value bytea, ttl interval DEFAULT NULL, db integer DEFAULT 0) RETURNS void
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys := freshet.lock_key($4, $1, true);
BEGIN
    IF $2 IS NULL THEN
        RAISE EXCEPTION 'ERR the value is NULL' USING ERRCODE = 'FR004';
    ELSIF $3 <= '0' THEN
        RAISE EXCEPTION 'ERR invalid expire time in ''set'' command' USING ERRCODE = 'FR004';
    END IF;
    row_.kind := 0;
    row_.expires_ms := extract(epoch FROM clock_timestamp() + $3) * 1000;
    row_.value := $2;
    row_.size := NULL;
    row_.meta := NULL;
    PERFORM freshet.save_key(row_, 'set');
    IF $3 IS NOT NULL THEN
        PERFORM freshet.note_change(row_.db, row_.key, row_.version + 1, 'expire');
    END IF;
END $$;

CREATE FUNCTION freshet.get(key bytea, db integer DEFAULT 0) RETURNS bytea
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    found_ record;
BEGIN
    SELECT k.kind, k.value INTO found_ FROM freshet.keys k
     WHERE k.db = $2 AND k.key = $1 AND (k.expires_ms IS NULL OR k.expires_ms > freshet.now_ms());
    IF found_.kind > 0 THEN
        PERFORM freshet.wrong_type();
    END IF;
    RETURN found_.value;
END $$;

-- How many of the keys were there.
CREATE FUNCTION freshet.del(keys bytea[], db integer DEFAULT 0) RETURNS integer
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys;
    name bytea;
    gone integer := 0;
BEGIN
    FOR name IN SELECT DISTINCT u FROM unnest($1) u ORDER BY u LOOP
        row_ := freshet.lock_key($2, name, false);
        IF row_.kind IS NOT NULL THEN
            PERFORM freshet.save_deletion(row_, 'del');
            gone := gone + 1;
        END IF;
    END LOOP;
    RETURN gone;
END $$;

CREATE FUNCTION freshet.del(key bytea, db integer DEFAULT 0) RETURNS integer
LANGUAGE sql
AS $$ SELECT freshet.del(ARRAY[$1], $2) $$;

-- Whether the key was there. A time to live that is over deletes it.
CREATE FUNCTION freshet.expire(key bytea, ttl interval, db integer DEFAULT 0) RETURNS boolean
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys := freshet.lock_key($3, $1, false);
BEGIN
    IF $2 IS NULL THEN
        RAISE EXCEPTION 'ERR the time to live is NULL' USING ERRCODE = 'FR004';
    ELSIF row_.kind IS NULL THEN
        RETURN false;
    ELSIF $2 <= '0' THEN
        PERFORM freshet.save_deletion(row_, 'del');
    ELSE
        row_.expires_ms := extract(epoch FROM clock_timestamp() + $2) * 1000;
        PERFORM freshet.save_key(row_, 'expire');
    END IF;
    RETURN true;
END $$;

-- Whether the key was there and had an end.
CREATE FUNCTION freshet.persist(key bytea, db integer DEFAULT 0) RETURNS boolean
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys := freshet.lock_key($2, $1, false);
BEGIN
    IF row_.kind IS NULL OR row_.expires_ms IS NULL THEN
        RETURN false;
    END IF;
    row_.expires_ms := NULL;
    PERFORM freshet.save_key(row_, 'persist');
    RETURN true;
END $$;

-- The sum.
CREATE FUNCTION freshet.incrby(key bytea, increment bigint DEFAULT 1, db integer DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys := freshet.lock_key($3, $1, true);
    before text := '0';
    sum numeric;
BEGIN
    IF row_.kind = 0 THEN
        before := encode(row_.value, 'escape');
    ELSIF row_.kind > 0 THEN
        PERFORM freshet.wrong_type();
    END IF;
    IF before !~ '^(0|-?[1-9][0-9]{0,18})$' OR before::numeric NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN
        RAISE EXCEPTION 'ERR value is not an integer or out of range' USING ERRCODE = 'FR004';
    END IF;
    sum := before::numeric + $2;
    IF sum IS NULL OR sum NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN
        RAISE EXCEPTION 'ERR increment or decrement would overflow' USING ERRCODE = 'FR004';
    END IF;
    row_.kind := 0;
    row_.value := convert_to(sum::text, 'UTF8');
    row_.size := NULL;
    row_.meta := NULL;
    PERFORM freshet.save_key(row_, 'incrby');
    RETURN sum;
END $$;

-- How many of the fields are new. (A hash's `meta` is the place of the next new field.)
CREATE FUNCTION freshet.hset(key bytea, fields bytea[], vals bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
#variable_conflict use_column
DECLARE
    row_ freshet.keys := freshet.lock_collection($4, $1, 1::smallint);
    next bigint := CASE octet_length(row_.meta) WHEN 8 THEN freshet.number_at(row_.meta, 0) ELSE 0 END;
    before bigint := row_.size;
    field_ bytea;
BEGIN
    IF coalesce(cardinality($2), 0) = 0 OR cardinality($2) IS DISTINCT FROM cardinality($3) THEN
        RAISE EXCEPTION 'ERR wrong number of arguments for ''hset'' command' USING ERRCODE = 'FR004';
    ELSIF array_position($3, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'ERR a field, member or value is NULL' USING ERRCODE = 'FR004';
    END IF;
    FOR at IN 1 .. cardinality($2) LOOP
        field_ := freshet.stored_field($2[at]);
        UPDATE freshet.element e SET value = $3[at] WHERE e.content = row_.content AND e.field = field_;
        IF NOT FOUND THEN
            INSERT INTO freshet.element (content, field, rank, value, name)
            VALUES (row_.content, field_, next, $3[at], freshet.stored_name($2[at]));
            next := next + 1;
            row_.size := row_.size + 1;
        END IF;
    END LOOP;
    row_.meta := int8send(next);
    PERFORM freshet.save_key(row_, 'hset');
    RETURN row_.size - before;
END $$;

CREATE FUNCTION freshet.hset(key bytea, field bytea, value bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.hset($1, ARRAY[$2], ARRAY[$3], $4) $$;

CREATE FUNCTION freshet.hget(key bytea, field bytea, db integer DEFAULT 0) RETURNS bytea
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    found_ record;
BEGIN
    SELECT k.kind, k.content INTO found_ FROM freshet.keys k
     WHERE k.db = $3 AND k.key = $1 AND (k.expires_ms IS NULL OR k.expires_ms > freshet.now_ms());
    IF found_.kind <> 1 THEN
        PERFORM freshet.wrong_type();
    ELSIF found_.kind IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT e.value FROM freshet.element e
             WHERE e.content = found_.content AND e.field = freshet.stored_field($2));
END $$;

-- Takes elements out of a collection of a kind; how many were there.
CREATE FUNCTION freshet.remove(key bytea, fields bytea[], db integer, kind smallint, event text) RETURNS bigint
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys := freshet.lock_present($3, $1, $4);
    gone bigint := CASE WHEN row_.kind IS NULL THEN 0 ELSE freshet.take_elements(row_.content, $2) END;
BEGIN
    IF gone > 0 THEN
        row_.size := row_.size - gone;
        PERFORM freshet.save_removal(row_, $5);
    END IF;
    RETURN gone;
END $$;

-- How many of the fields were there.
CREATE FUNCTION freshet.hdel(key bytea, fields bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.remove($1, $2, $3, 1::smallint, 'hdel') $$;

CREATE FUNCTION freshet.hdel(key bytea, field bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.hdel($1, ARRAY[$2], $3) $$;

-- Puts items beyond an end of a list; its length. (A list's `meta` is the free position below all
-- items and the one above; positions are a step of 2^20 apart, and order as bytes.)
CREATE FUNCTION freshet.push(key bytea, vals bytea[], db integer, is_head boolean) RETURNS bigint
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
DECLARE
    row_ freshet.keys := freshet.lock_collection($3, $1, 2::smallint);
    step constant bigint := 1048576;
    low bigint := CASE row_.size WHEN 0 THEN 0 ELSE freshet.number_at(row_.meta, 0) END;
    high bigint := CASE row_.size WHEN 0 THEN step ELSE freshet.number_at(row_.meta, 8) END;
    place bigint;
BEGIN
    IF coalesce(cardinality($2), 0) = 0 THEN
        RAISE EXCEPTION 'ERR wrong number of arguments' USING ERRCODE = 'FR004';
    ELSIF array_position($2, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'ERR a field, member or value is NULL' USING ERRCODE = 'FR004';
    END IF;
    FOR at IN 1 .. cardinality($2) LOOP
        IF $4 THEN
            place := low;
            low := low - step;
        ELSE
            place := high;
            high := high + step;
        END IF;
        INSERT INTO freshet.element (content, field, value)
        VALUES (row_.content, int8send(place # (-9223372036854775808)), $2[at]);
    END LOOP;
    row_.size := row_.size + cardinality($2);
    row_.meta := int8send(low) || int8send(high);
    PERFORM freshet.save_key(row_, CASE WHEN $4 THEN 'lpush' ELSE 'rpush' END);
    RETURN row_.size;
END $$;

CREATE FUNCTION freshet.rpush(key bytea, vals bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.push($1, $2, $3, false) $$;

CREATE FUNCTION freshet.rpush(key bytea, value bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.push($1, ARRAY[$2], $3, false) $$;

CREATE FUNCTION freshet.lpush(key bytea, vals bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.push($1, $2, $3, true) $$;

CREATE FUNCTION freshet.lpush(key bytea, value bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.push($1, ARRAY[$2], $3, true) $$;

-- How many of the members are new.
CREATE FUNCTION freshet.sadd(key bytea, members bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
#variable_conflict use_column
DECLARE
    row_ freshet.keys := freshet.lock_collection($3, $1, 3::smallint);
    added bigint;
BEGIN
    IF coalesce(cardinality($2), 0) = 0 THEN
        RAISE EXCEPTION 'ERR wrong number of arguments for ''sadd'' command' USING ERRCODE = 'FR004';
    END IF;
    INSERT INTO freshet.element (content, field, name)
    SELECT DISTINCT row_.content, freshet.stored_field(u), freshet.stored_name(u) FROM unnest($2) u
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added > 0 THEN
        row_.size := row_.size + added;
        PERFORM freshet.save_key(row_, 'sadd');
    END IF;
    RETURN added;
END $$;

CREATE FUNCTION freshet.sadd(key bytea, member bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.sadd($1, ARRAY[$2], $3) $$;

-- How many of the members were there.
CREATE FUNCTION freshet.srem(key bytea, members bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.remove($1, $2, $3, 3::smallint, 'srem') $$;

CREATE FUNCTION freshet.srem(key bytea, member bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.srem($1, ARRAY[$2], $3) $$;

-- How many of the members are new. (A sorted set's `meta` is 's' if Redis would hold it as a skip list,
-- which alone knows a negative zero.)
CREATE FUNCTION freshet.zadd(key bytea, scores double precision[], members bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
#variable_conflict use_column
DECLARE
    row_ freshet.keys := freshet.lock_collection($4, $1, 4::smallint);
    before bigint := row_.size;
    is_changed boolean := false;
    score double precision;
    old double precision;
    field_ bytea;
BEGIN
    IF coalesce(cardinality($2), 0) = 0 OR cardinality($2) IS DISTINCT FROM cardinality($3) THEN
        RAISE EXCEPTION 'ERR wrong number of arguments for ''zadd'' command' USING ERRCODE = 'FR004';
    END IF;
    FOR at IN 1 .. cardinality($2) LOOP
        score := $2[at];
        IF score IS NULL OR score = 'NaN' THEN
            RAISE EXCEPTION 'ERR value is not a valid float' USING ERRCODE = 'FR004';
        END IF;
        field_ := freshet.stored_field($3[at]);
        SELECT e.rank INTO old FROM freshet.element e WHERE e.content = row_.content AND e.field = field_;
        IF NOT FOUND THEN
            IF octet_length($3[at]) > 64 OR row_.size >= 128 THEN
                row_.meta := 's';
            END IF;
            INSERT INTO freshet.element (content, field, rank, name)
            VALUES (row_.content, field_, CASE WHEN row_.meta = 's' THEN score ELSE score + 0 END,
                    freshet.stored_name($3[at]));
            row_.size := row_.size + 1;
            is_changed := true;
        ELSIF old <> score THEN
            UPDATE freshet.element e SET rank = CASE WHEN row_.meta = 's' THEN score ELSE score + 0 END
             WHERE e.content = row_.content AND e.field = field_;
            is_changed := true;
        END IF;
    END LOOP;
    IF is_changed THEN
        PERFORM freshet.save_key(row_, 'zadd');
    END IF;
    RETURN row_.size - before;
END $$;

CREATE FUNCTION freshet.zadd(key bytea, score double precision, member bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.zadd($1, ARRAY[$2], ARRAY[$3], $4) $$;

-- How many of the members were there.
CREATE FUNCTION freshet.zrem(key bytea, members bytea[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.remove($1, $2, $3, 4::smallint, 'zrem') $$;

CREATE FUNCTION freshet.zrem(key bytea, member bytea, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql
AS $$ SELECT freshet.zrem($1, ARRAY[$2], $3) $$;

-- The same for keys, fields and values that are text.

CREATE FUNCTION freshet.set(key text, value text, ttl interval DEFAULT NULL, db integer DEFAULT 0) RETURNS void
LANGUAGE sql AS $$ SELECT freshet.set(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3, $4) $$;
CREATE FUNCTION freshet.get(key text, db integer DEFAULT 0) RETURNS text
LANGUAGE sql AS $$ SELECT convert_from(freshet.get(convert_to($1, 'UTF8'), $2), 'UTF8') $$;
CREATE FUNCTION freshet.del(keys text[], db integer DEFAULT 0) RETURNS integer
LANGUAGE sql AS $$ SELECT freshet.del(freshet.to_bytes($1), $2) $$;
CREATE FUNCTION freshet.del(key text, db integer DEFAULT 0) RETURNS integer
LANGUAGE sql AS $$ SELECT freshet.del(convert_to($1, 'UTF8'), $2) $$;
CREATE FUNCTION freshet.expire(key text, ttl interval, db integer DEFAULT 0) RETURNS boolean
LANGUAGE sql AS $$ SELECT freshet.expire(convert_to($1, 'UTF8'), $2, $3) $$;
CREATE FUNCTION freshet.persist(key text, db integer DEFAULT 0) RETURNS boolean
LANGUAGE sql AS $$ SELECT freshet.persist(convert_to($1, 'UTF8'), $2) $$;
CREATE FUNCTION freshet.incrby(key text, increment bigint DEFAULT 1, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.incrby(convert_to($1, 'UTF8'), $2, $3) $$;
CREATE FUNCTION freshet.hset(key text, fields text[], vals text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.hset(convert_to($1, 'UTF8'), freshet.to_bytes($2), freshet.to_bytes($3), $4) $$;
CREATE FUNCTION freshet.hset(key text, field text, value text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.hset(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), convert_to($3, 'UTF8'), $4) $$;
CREATE FUNCTION freshet.hget(key text, field text, db integer DEFAULT 0) RETURNS text
LANGUAGE sql AS $$ SELECT convert_from(freshet.hget(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3), 'UTF8') $$;
CREATE FUNCTION freshet.hdel(key text, fields text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.hdel(convert_to($1, 'UTF8'), freshet.to_bytes($2), $3) $$;
CREATE FUNCTION freshet.hdel(key text, field text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.hdel(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3) $$;
CREATE FUNCTION freshet.rpush(key text, vals text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.push(convert_to($1, 'UTF8'), freshet.to_bytes($2), $3, false) $$;
CREATE FUNCTION freshet.rpush(key text, value text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.rpush(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3) $$;
CREATE FUNCTION freshet.lpush(key text, vals text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.push(convert_to($1, 'UTF8'), freshet.to_bytes($2), $3, true) $$;
CREATE FUNCTION freshet.lpush(key text, value text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.lpush(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3) $$;
CREATE FUNCTION freshet.sadd(key text, members text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.sadd(convert_to($1, 'UTF8'), freshet.to_bytes($2), $3) $$;
CREATE FUNCTION freshet.sadd(key text, member text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.sadd(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3) $$;
CREATE FUNCTION freshet.srem(key text, members text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.srem(convert_to($1, 'UTF8'), freshet.to_bytes($2), $3) $$;
CREATE FUNCTION freshet.srem(key text, member text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.srem(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3) $$;
CREATE FUNCTION freshet.zadd(key text, scores double precision[], members text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.zadd(convert_to($1, 'UTF8'), $2, freshet.to_bytes($3), $4) $$;
CREATE FUNCTION freshet.zadd(key text, score double precision, member text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.zadd(convert_to($1, 'UTF8'), $2, convert_to($3, 'UTF8'), $4) $$;
CREATE FUNCTION freshet.zrem(key text, members text[], db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.zrem(convert_to($1, 'UTF8'), freshet.to_bytes($2), $3) $$;
CREATE FUNCTION freshet.zrem(key text, member text, db integer DEFAULT 0) RETURNS bigint
LANGUAGE sql AS $$ SELECT freshet.zrem(convert_to($1, 'UTF8'), convert_to($2, 'UTF8'), $3) $$;

-- Rows of freshet.keys that are changed by hand. (Proxies are known by the name that all of them, of every
-- version, give their sessions; the functions above by their setting.)
CREATE FUNCTION freshet.changed_by_hand() RETURNS trigger
LANGUAGE plpgsql SET application_name = 'freshet'
AS $$
#variable_conflict use_column
DECLARE
    mark bigint := (SELECT s.last_value FROM freshet.purged s);
    is_dead boolean;
    raised bigint;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        PERFORM freshet.check_key(NEW.db, NEW.key);
        IF NEW.kind = 0 AND NEW.value IS NULL OR NEW.kind > 0 AND NEW.content IS NULL OR NEW.kind NOT BETWEEN 0 AND 5 THEN
            RAISE EXCEPTION 'ERR a row of freshet.keys of kind % without what it holds', NEW.kind
                USING ERRCODE = 'FR004', HINT = 'Kind 0 is a string and has a value; write other types by freshet.hset and its like.';
        END IF;
        raised := CASE
            WHEN TG_OP = 'INSERT' THEN greatest(NEW.version, mark + 1)
            WHEN (NEW.db, NEW.key) <> (OLD.db, OLD.key) THEN greatest(NEW.version, OLD.version + 1, mark + 1)
            ELSE greatest(NEW.version, OLD.version + 1)
        END;
        UPDATE freshet.keys k
           SET version = raised,
               expires_ms = CASE WHEN k.kind IS NULL THEN coalesce(k.expires_ms, freshet.now_ms()) ELSE k.expires_ms END
         WHERE k.db = NEW.db AND k.key = NEW.key;
        PERFORM freshet.note_change(NEW.db, NEW.key, raised, CASE
            WHEN NEW.kind IS NULL THEN 'del'
            WHEN TG_OP = 'INSERT' OR NEW.value IS DISTINCT FROM OLD.value THEN CASE NEW.kind WHEN 0 THEN 'set' END
            WHEN NEW.expires_ms IS DISTINCT FROM OLD.expires_ms THEN
                CASE WHEN NEW.expires_ms IS NULL THEN 'persist' ELSE 'expire' END
        END);
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND (NEW.db, NEW.key) <> (OLD.db, OLD.key) THEN
        -- What was deleted or moved away leaves its version; the purge takes that when it is old.
        is_dead := OLD.kind IS NULL OR coalesce(OLD.expires_ms <= freshet.now_ms(), false);
        raised := OLD.version + CASE WHEN is_dead THEN 0 ELSE 1 END;
        INSERT INTO freshet.keys (db, key, version, expires_ms, content)
        VALUES (OLD.db, OLD.key, raised, CASE WHEN is_dead THEN OLD.expires_ms ELSE freshet.now_ms() END,
                CASE TG_OP WHEN 'DELETE' THEN OLD.content END)
            ON CONFLICT DO NOTHING;
        IF NOT is_dead THEN
            PERFORM freshet.note_change(OLD.db, OLD.key, raised, 'del');
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER changed_by_hand AFTER INSERT OR UPDATE OR DELETE ON freshet.keys FOR EACH ROW
    WHEN (current_setting('application_name') <> 'freshet' AND coalesce(current_setting('freshet.writer', true), '') = '')
    EXECUTE FUNCTION freshet.changed_by_hand();

-- Who inserts a row by hand need not know of versions.
ALTER TABLE freshet.keys ALTER COLUMN version SET DEFAULT 0;

CREATE FUNCTION freshet.refuse_by_hand() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_TABLE_NAME = 'keys' THEN
        RAISE EXCEPTION 'freshet.keys cannot be truncated: the cache would not hear of it'
            USING ERRCODE = 'FR004', HINT = 'Send FLUSHALL to a proxy, or use DELETE.';
    END IF;
    RAISE EXCEPTION 'freshet.element cannot be changed by hand: size, order and version of the key stand in its row'
        USING ERRCODE = 'FR004', HINT = 'Use freshet.hset, freshet.rpush, freshet.sadd, freshet.zadd and their like, or a proxy.';
END $$;

CREATE TRIGGER refuse_by_hand BEFORE TRUNCATE ON freshet.keys FOR EACH STATEMENT
    WHEN (current_setting('application_name') <> 'freshet' AND coalesce(current_setting('freshet.writer', true), '') = '')
    EXECUTE FUNCTION freshet.refuse_by_hand();
CREATE TRIGGER refuse_by_hand BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON freshet.element FOR EACH STATEMENT
    WHEN (current_setting('application_name') <> 'freshet' AND coalesce(current_setting('freshet.writer', true), '') = '')
    EXECUTE FUNCTION freshet.refuse_by_hand();
