-- Who may do what in a ledger. Run it as the owner of the database, after `secateur db upgrade`,
-- and again after each later upgrade: it can be run any number of times.
--
--   secateur_reader    asks: SELECT, and nothing else
--   secateur_writer    runs agents: appends; changes what is derived, never a record; does not
--                      decide for a person and does not erase
--   secateur_reviewer  decides and erases: appends `decided`, `erased` and `noted` events alone,
--                      empties blobs that an `erased` event names, signs checkpoints
--
-- They are groups. Make a login for each person and each machine, so that the server's log tells
-- them apart:   CREATE ROLE agents_1 LOGIN PASSWORD '…' IN ROLE secateur_writer;

BEGIN;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['secateur_reader', 'secateur_writer', 'secateur_reviewer'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public
    FROM PUBLIC, secateur_reader, secateur_writer, secateur_reviewer;
-- A temporary table would hide one of the ledger's from whoever made it, and from its triggers.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END $$;
GRANT USAGE ON SCHEMA public TO secateur_reader, secateur_writer, secateur_reviewer;
GRANT SELECT ON ALL TABLES IN SCHEMA public
    TO secateur_reader, secateur_writer, secateur_reviewer;

-- The record: the writer appends to it.
GRANT INSERT ON policy, blob, run, event TO secateur_writer;

-- What is derived from the record: written with it, and changed by later events.
GRANT INSERT ON thought, tag_score TO secateur_writer;
GRANT UPDATE (status, reason, score) ON thought TO secateur_writer;
GRANT INSERT ON passage, passage_mark, passage_words TO secateur_writer;
GRANT UPDATE (upto, settled) ON passage_mark TO secateur_writer, secateur_reviewer;

-- A person's decision, an erasure, a checkpoint.
GRANT INSERT ON event, blob, decision, erasure, checkpoint TO secateur_reviewer;
GRANT UPDATE (status, reason, text, value) ON thought TO secateur_reviewer;
GRANT UPDATE (reason) ON decision TO secateur_reviewer;
GRANT UPDATE (bytes, salt) ON blob TO secateur_reviewer;
GRANT INSERT, DELETE ON passage, passage_words TO secateur_reviewer;

-- Which events each may append. Not row security: COPY, which the writer uses, knows none.
CREATE OR REPLACE FUNCTION secateur_may_append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    by_person boolean := NEW.kind IN ('decided', 'erased');
    needed text := CASE WHEN by_person THEN 'secateur_reviewer' ELSE 'secateur_writer' END;
BEGIN
    IF NEW.kind = 'noted' AND pg_has_role(current_user, 'secateur_reviewer', 'USAGE') THEN
        needed := 'secateur_reviewer';
    END IF;
    IF NOT pg_has_role(current_user, needed, 'USAGE') THEN
        RAISE EXCEPTION '% may not append % events: % may', current_user, NEW.kind, needed
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF by_person <> (NEW.actor LIKE 'person:%' AND btrim(substr(NEW.actor, 8)) <> '') THEN
        RAISE EXCEPTION '% events are not by %', NEW.kind, NEW.actor
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER event_by_role BEFORE INSERT ON event
    FOR EACH ROW EXECUTE FUNCTION secateur_may_append();

-- What may become of a thought's row: dropped by its run, or decided by a person. Not by what the
-- row said before: it could have been changed, and the events decide.
CREATE OR REPLACE FUNCTION secateur_may_settle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> 'dropped' AND NOT (
        NEW.status IN ('kept', 'pruned')
        AND pg_has_role(current_user, 'secateur_reviewer', 'USAGE')
    ) THEN
        RAISE EXCEPTION '% may not make a thought %', current_user, NEW.status
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER thought_by_role BEFORE UPDATE ON thought
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION secateur_may_settle();

-- An erasure stands for an `erased` event that names the blob.
CREATE OR REPLACE FUNCTION secateur_may_empty() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM event WHERE run_id = NEW.run_id AND seq = NEW.seq AND kind = 'erased'
        AND strpos(body, NEW.digest) > 0
    ) THEN
        RAISE EXCEPTION 'no erased event names the blob %', NEW.digest
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER erasure_by_event BEFORE INSERT ON erasure
    FOR EACH ROW EXECUTE FUNCTION secateur_may_empty();

-- What guards the blobs looks for erasures in the ledger's own table, wherever a session looks.
ALTER FUNCTION refuse_but_erasure() SET search_path = pg_catalog, public, pg_temp;

COMMIT;
