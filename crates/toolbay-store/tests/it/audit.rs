//! The audit: whole chains whoever writes, never changed, and every change of it is found and named.

use toolbay_api::{ErrorKind, Scope};
use toolbay_runtime::store::{AuditEntry, AuditQuery, ChainHash, Store as _};
use toolbay_store::Bounds;

use crate::support::*;

/// A number of lines in two chains.
async fn written(db: &Fixture) {
    db.tenants(&["acme"]).await;
    for n in 0..3 {
        for scope in [scope("acme"), Scope::Global] {
            db.store.record(vec![entry(scope, "tool.call", &format!("tool-{n}"))]).await.unwrap();
        }
    }
}

/// Lets `sql` do what triggers forbid.
async fn tamper(db: &Fixture, sql: &str) {
    let sql = if db.is_postgres() {
        format!("ALTER TABLE audit DISABLE TRIGGER USER; {sql}; ALTER TABLE audit ENABLE TRIGGER USER")
    } else {
        format!(
            "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_shortened; DROP TRIGGER audit_is_never_replaced; {sql}"
        )
    };
    db.sql(&sql).await.unwrap();
}

on_both! {
    async fn lines_are_in_a_chain_and_come_in_parts(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let entries = ["plugin.enable", "tool.call", "plugin.disable", "pluginx", "tool.call"].map(|action| entry(scope("acme"), action, "fx"));
        db.store.record(entries.to_vec()).await.unwrap();
        let listed = async |query: AuditQuery| db.store.audit(&scope("acme"), &query).await.unwrap();
        let lines = listed(all()).await.items;
        let mut previous = ChainHash::default();
        for (line, (at, entry)) in lines.iter().zip((1..).zip(&entries)) {
            assert_eq!(&line.entry, entry);
            assert!(line.follows(at, &previous));
            previous = line.hash;
        }
        let first = listed(AuditQuery { page: page(2), newest_first: true, ..all() }).await;
        assert_eq!(first.items.iter().map(|line| line.sequence).collect::<Vec<_>>(), [5, 4]);
        let rest = AuditQuery { page: toolbay_runtime::store::Page { after: first.next, limit: 9 }, newest_first: true, ..all() };
        assert_eq!(listed(rest).await.items.iter().map(|line| line.sequence).collect::<Vec<_>>(), [3, 2, 1]);
        let of = async |action: &str| {
            let found = listed(AuditQuery { action: Some(action.into()), ..all() }).await.items;
            found.iter().map(|line| line.sequence).collect::<Vec<_>>()
        };
        assert_eq!(of("tool.call").await, [2, 5]);
        assert_eq!(of("plugin.").await, [1, 3]);
        assert!(listed(AuditQuery { since_ms: Some(12), ..all() }).await.items.is_empty());
        assert_eq!(kind(db.store.record(vec![entry(scope("nobody"), "a", "b")]).await), ErrorKind::NotFound);
    }

    async fn writers_in_several_processes_make_one_chain(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let mut writers = Vec::new();
        for _ in 0..4 {
            let store = db.another().await;
            writers.push(tokio::spawn(async move {
                for n in 0..15 {
                    let mut entries = vec![entry(scope("acme"), "tool.call", "x"), entry(scope("globex"), "tool.call", "y"), entry(Scope::Global, "tool.call", "z")];
                    entries.rotate_left(n % 3);
                    store.record(entries).await.unwrap();
                }
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        for scope in [scope("acme"), scope("globex"), Scope::Global] {
            assert_eq!(db.store.audit(&scope, &all()).await.unwrap().items.len(), 60);
        }
        assert_eq!(db.store.verify_audit().await.unwrap(), []);
    }

    async fn the_database_itself_refuses_to_change_the_audit(db: &Fixture) {
        written(db).await;
        for sql in [
            "UPDATE audit SET outcome = 'denied'",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE sequence = 2",
            if db.is_postgres() { "TRUNCATE audit" } else { "INSERT OR REPLACE INTO audit SELECT * FROM audit" },
        ] {
            let error = db.sql(sql).await.expect_err(sql);
            assert!(error.to_string().contains("append-only"), "{sql}: {error}");
        }
        assert_eq!(db.store.verify_audit().await.unwrap(), []);
    }

    async fn a_change_of_any_one_column_is_found_and_named(db: &Fixture) {
        written(db).await;
        let nil = if db.is_postgres() { "'00000000-0000-0000-0000-000000000000'" } else { "x'00000000000000000000000000000000'" };
        let zeros = if db.is_postgres() { "decode(repeat('00', 32), 'hex')" } else { "zeroblob(32)" };
        let other = if db.is_postgres() { "'00000000-0000-0000-0000-000000000009'" } else { "x'00000000000000000000000000000009'" };
        let changes = [
            ("at", "at + 1".to_owned()), ("actor", "'cli'".into()), ("action", "'tool.cal'".into()), ("target", "'tool-9'".into()),
            ("outcome", "'denied'".into()), ("detail", r#"'{"z":1.5,"a":[true,false]}'"#.into()), ("detail", "'{'".into()), ("previous", zeros.into()), ("hash", zeros.into()),
            ("sequence", "sequence + 10".into()), ("scope_id", other.into()),
        ];
        // Triggers are gone for the rest of this test.
        tamper(db, "DELETE FROM audit WHERE 1 = 0").await;
        for (column, value) in changes {
            if db.is_postgres() && value == "'{'" {
                // A column of the type json takes no such thing.
                continue;
            }
            db.sql("CREATE TABLE kept AS SELECT * FROM audit").await.unwrap();
            let disable = if db.is_postgres() { "ALTER TABLE audit DISABLE TRIGGER USER;" } else { "" };
            db.sql(&format!("{disable} UPDATE audit SET {column} = {value} WHERE scope_id = {nil} AND sequence = 2")).await.unwrap();
            let problems = db.store.verify_audit().await.unwrap();
            let is_named = |problem: &toolbay_store::ChainProblem| problem.scope == Scope::Global && problem.sequence == 2;
            assert!(problems.iter().any(is_named), "{column}: {problems:?}");
            assert!(problems.iter().all(|problem| problem.scope_id.is_nil() || column == "scope_id"), "{column}: {problems:?}");
            db.sql("DELETE FROM audit; INSERT INTO audit SELECT * FROM kept; DROP TABLE kept").await.unwrap();
            assert_eq!(db.store.verify_audit().await.unwrap(), []);
        }
        // A line that is gone: from within, and from the end.
        for sequence in [1, 2, 3] {
            db.sql("CREATE TABLE kept AS SELECT * FROM audit").await.unwrap();
            db.sql(&format!("DELETE FROM audit WHERE scope_id = {nil} AND sequence = {sequence}")).await.unwrap();
            let problems = db.store.verify_audit().await.unwrap();
            assert_eq!(problems.iter().map(|problem| (problem.sequence, problem.problem.as_str())).next(), Some((sequence, "the line is missing")));
            db.sql("DELETE FROM audit; INSERT INTO audit SELECT * FROM kept; DROP TABLE kept").await.unwrap();
        }
        // A head that was set back, and a line that was added behind its back.
        db.sql(&format!("UPDATE audit_chains SET sequence = 2 WHERE scope_id = {nil}")).await.unwrap();
        assert_eq!(db.store.verify_audit().await.unwrap()[0].sequence, 3);
    }

    async fn a_long_entry_is_cut_and_not_refused(db: &Fixture) {
        let store = db.bounded(Bounds { audit_bytes: 320, ..Bounds::default() }).await;
        let long = AuditEntry {
            target: "é".repeat(1_000),
            detail: serde_json::json!({ "text": "x".repeat(1_000) }),
            ..entry(Scope::Global, "tool.call", "")
        };
        store.record(vec![long]).await.unwrap();
        let line = store.audit(&Scope::Global, &all()).await.unwrap().items.remove(0);
        assert_eq!(line.entry.target, format!("{}…", "é".repeat(10)));
        assert_eq!(line.entry.detail.to_string(), r#"{"omitted_bytes":1011}"#);
        assert_eq!(store.verify_audit().await.unwrap(), []);
    }
}
