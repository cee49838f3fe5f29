-- Words with @ before them are what differs between the databases; src/migrations.rs puts in what each calls it.
-- All times are milliseconds since 1970, UTC. JSON is kept as text on both: jsonb would write numbers and the order of
-- keys anew.

-- The number of the last change. Its row is locked by whoever changes something that replicas follow, from the change's
-- beginning to its commit, so that the order of numbers is the order of commits.
CREATE TABLE store_state (
    one @int PRIMARY KEY CHECK (one = 1),
    position @int NOT NULL
) @strict;
INSERT INTO store_state (one, position) VALUES (1, 0);

-- The global scope is the row with the nil UUID and the empty name, which no tenant can have: unique keys that have the
-- tenant in them hold for it too, which they would not for a NULL.
CREATE TABLE tenants (
    id @uuid PRIMARY KEY,
    name @text NOT NULL UNIQUE,
    suspended @bool NOT NULL,
    created_at @int NOT NULL,
    revision @int NOT NULL,
    changed @int NOT NULL,
    registrations_changed @int NOT NULL
) @strict;
CREATE INDEX tenants_changed ON tenants (changed);
CREATE INDEX tenants_registrations_changed ON tenants (registrations_changed);
INSERT INTO tenants (id, name, suspended, created_at, revision, changed, registrations_changed)
    VALUES (@nil, '', @false, 0, 0, 0, 0);

CREATE TABLE removed_tenants (
    id @uuid PRIMARY KEY,
    name @text NOT NULL,
    changed @int NOT NULL
) @strict;
CREATE INDEX removed_tenants_changed ON removed_tenants (changed);
CREATE INDEX removed_tenants_name ON removed_tenants (name, changed);

-- What was uploaded, once for each content.
CREATE TABLE packages (
    digest @bytes PRIMARY KEY,
    content @bytes NOT NULL
) @strict;

CREATE TABLE package_versions (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    plugin_name @text NOT NULL,
    plugin_version @text NOT NULL,
    digest @bytes NOT NULL REFERENCES packages (digest),
    bytes @int NOT NULL,
    file_name @text,
    manifest @json NOT NULL,
    uploaded_at @int NOT NULL,
    uploaded_by @text NOT NULL,
    PRIMARY KEY (tenant_id, plugin_name, plugin_version),
    UNIQUE (tenant_id, plugin_name, plugin_version, digest)
) @strict;
CREATE INDEX package_versions_digest ON package_versions (digest);

CREATE TABLE plugin_registrations (
    id @uuid PRIMARY KEY,
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    plugin_name @text NOT NULL,
    plugin_version @text NOT NULL,
    enabled @bool NOT NULL,
    config @json,
    installed_at @int NOT NULL,
    updated_at @int NOT NULL,
    package_digest @bytes,
    previous_version @text,
    priority @int,
    revision @int NOT NULL,
    UNIQUE (tenant_id, plugin_name),
    -- At the end of the transaction, so that the steps of a change may come in any order.
    FOREIGN KEY (tenant_id, plugin_name, plugin_version, package_digest)
        REFERENCES package_versions (tenant_id, plugin_name, plugin_version, digest) DEFERRABLE INITIALLY DEFERRED
) @strict;

CREATE TABLE api_keys (
    id @uuid PRIMARY KEY,
    prefix @text NOT NULL UNIQUE,
    hash @bytes NOT NULL,
    role @text NOT NULL,
    tenant_id @uuid REFERENCES tenants (id) ON DELETE CASCADE,
    label @text NOT NULL,
    rate @int,
    created_at @int NOT NULL,
    expires_at @int,
    revoked_at @int,
    changed @int NOT NULL
) @strict;
CREATE INDEX api_keys_changed ON api_keys (changed);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, created_at, id);
CREATE INDEX api_keys_created ON api_keys (created_at, id);

-- One that is gone stays as a row without a reference: replicas must hear of it.
CREATE TABLE secret_references (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name @text NOT NULL,
    reference @text,
    changed @int NOT NULL,
    PRIMARY KEY (tenant_id, name)
) @strict;
CREATE INDEX secret_references_changed ON secret_references (changed);

CREATE TABLE answers (
    owner @uuid NOT NULL,
    key @text NOT NULL,
    request @bytes NOT NULL,
    answer @json NOT NULL,
    expires_at @int NOT NULL,
    PRIMARY KEY (owner, key)
) @strict;
CREATE INDEX answers_expires ON answers (expires_at);
CREATE INDEX answers_owner ON answers (owner, expires_at);

-- What one space holds. Its row is locked by whoever writes to the space, so that no two writers together go over the
-- quota, in whichever processes they are.
CREATE TABLE kv_spaces (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    plugin_name @text NOT NULL,
    own @bool NOT NULL,
    keys @int NOT NULL,
    bytes @int NOT NULL,
    PRIMARY KEY (tenant_id, plugin_name, own)
) @strict;

-- Keys are bytes: text of PostgreSQL cannot hold a zero, and is ordered by a language's rules.
CREATE TABLE kv (
    tenant_id @uuid NOT NULL,
    plugin_name @text NOT NULL,
    own @bool NOT NULL,
    key @bytes NOT NULL,
    value @json NOT NULL,
    bytes @int NOT NULL,
    expires_at @int,
    PRIMARY KEY (tenant_id, plugin_name, own, key),
    FOREIGN KEY (tenant_id, plugin_name, own) REFERENCES kv_spaces (tenant_id, plugin_name, own) ON DELETE CASCADE
) @strict;
CREATE INDEX kv_expires ON kv (tenant_id, plugin_name, own, expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE runs (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id @uuid NOT NULL,
    status @text NOT NULL,
    started_at @int NOT NULL,
    updated_at @int NOT NULL,
    state @json NOT NULL,
    revision @int NOT NULL,
    PRIMARY KEY (tenant_id, id)
) @strict;
CREATE INDEX runs_started ON runs (tenant_id, started_at, id);

-- How many events of a scope wait. Its row is locked by whoever adds or takes away one of the scope, so that the order of
-- numbers is the order of commits, and each key has one head.
CREATE TABLE outbox_scopes (
    tenant_id @uuid PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    entries @int NOT NULL
) @strict;

-- An event that is claimed is one that is due when its lease is over. Only the oldest of a key is its head.
CREATE TABLE outbox (
    sequence @serial,
    id @uuid NOT NULL UNIQUE,
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key @text NOT NULL,
    event @json NOT NULL,
    posted_at @int NOT NULL,
    attempts @int NOT NULL,
    due_at @int NOT NULL,
    head @bool NOT NULL
) @strict;
CREATE INDEX outbox_due ON outbox (due_at, sequence) WHERE head;
CREATE INDEX outbox_keys ON outbox (tenant_id, key, sequence);

CREATE TABLE dead_events (
    id @uuid PRIMARY KEY,
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key @text NOT NULL,
    event @json NOT NULL,
    posted_at @int NOT NULL,
    attempts @int NOT NULL,
    problem @text NOT NULL,
    died_at @int NOT NULL
) @strict;
CREATE INDEX dead_events_died ON dead_events (died_at, id);
CREATE INDEX dead_events_tenant ON dead_events (tenant_id, died_at, id);

-- The audit outlives its tenants, so neither table refers to theirs.
CREATE TABLE audit_chains (
    scope_id @uuid PRIMARY KEY,
    name @text NOT NULL,
    sequence @int NOT NULL,
    hash @bytes NOT NULL
) @strict;

CREATE TABLE audit (
    scope_id @uuid NOT NULL,
    sequence @int NOT NULL,
    at @int NOT NULL,
    actor @text NOT NULL,
    action @text NOT NULL,
    target @text NOT NULL,
    outcome @text NOT NULL,
    detail @json NOT NULL,
    previous @bytes NOT NULL,
    hash @bytes NOT NULL,
    PRIMARY KEY (scope_id, sequence)
) @strict;

-- @sqlite
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_never_shortened BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
-- INSERT OR REPLACE asks no trigger for deletions.
CREATE TRIGGER audit_is_never_replaced BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE scope_id = NEW.scope_id AND sequence = NEW.sequence)
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
-- @postgres
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_is_never_emptied BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
