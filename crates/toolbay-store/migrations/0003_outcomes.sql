-- What became of the calls of runs that go on or were cut off; those of a run that is over are taken away. The key is a
-- digest that has tenant, run and call in it.
CREATE TABLE outcomes (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key @bytes NOT NULL,
    run_id @uuid NOT NULL,
    tool @text NOT NULL,
    arguments @bytes NOT NULL,
    attempts @int NOT NULL,
    state @text NOT NULL,
    reply @json,
    reply_digest @bytes,
    reply_bytes @int,
    started_at @int NOT NULL,
    settled_at @int,
    expires_at @int NOT NULL,
    PRIMARY KEY (tenant_id, key)
) @strict;
CREATE INDEX outcomes_run ON outcomes (tenant_id, run_id);
CREATE INDEX outcomes_expires ON outcomes (tenant_id, expires_at);

-- What a tenant spent on a day (days since 1970, UTC), over all processes. Whoever adds to it holds its row.
CREATE TABLE spending (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    day @int NOT NULL,
    steps @int NOT NULL,
    tool_calls @int NOT NULL,
    per_tool @json NOT NULL,
    input_tokens @int NOT NULL,
    output_tokens @int NOT NULL,
    cost_micros @int NOT NULL,
    wall_us @int NOT NULL,
    PRIMARY KEY (tenant_id, day)
) @strict;
