-- Runs that wait for somebody's decision. They are apart from `runs`, of which the oldest go: one that waits stays until it is
-- taken out or expires.
CREATE TABLE suspended_runs (
    tenant_id @uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id @uuid NOT NULL,
    user_name @text,
    suspended_at @int NOT NULL,
    expires_at @int NOT NULL,
    -- What waits, for lists.
    pending @json NOT NULL,
    state @json NOT NULL,
    PRIMARY KEY (tenant_id, id)
) @strict;
CREATE INDEX suspended_runs_since ON suspended_runs (tenant_id, suspended_at, id);
