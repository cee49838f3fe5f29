//! db: what an operator does by hand with a server's database.

use std::fs;

use expect_test::expect;
use serde_json::json;

use super::Desk;

#[test]
fn a_database_is_made_looked_at_and_copied() {
    let desk = Desk::new();
    desk.run(&["db", "status"]).refuses(&["there is no database toolbay-data/toolbay.db"]);
    desk.run(&["db", "backup", "copy.db"]).refuses(&["there is no database"]);
    expect![[r"
        applied 0001 begin
        applied 0002 suspended
        applied 0003 outcomes
    "]]
    .assert_eq(&desk.run(&["db", "migrate"]).ends(0).stdout);
    expect![[r"
        the database is up to date
    "]]
    .assert_eq(&desk.run(&["db", "migrate"]).ends(0).stdout);
    expect![[r"
        MIGRATION       STATE
        0001 begin      applied
        0002 suspended  applied
        0003 outcomes   applied
    "]]
    .assert_eq(&desk.run(&["db", "status"]).ends(0).stdout);
    desk.run(&["db", "backup", "copy.db"]).ends(0);
    desk.run(&["db", "backup", "copy.db"]).refuses(&["there is a file copy.db already"]);
    let told = desk.run(&["db", "status", "--json", "--database", "sqlite:copy.db"]).ends(0).json();
    let step = |version, name| json!({ "version": version, "name": name, "state": "applied" });
    let steps = [step(1, "begin"), step(2, "suspended"), step(3, "outcomes")];
    assert_eq!(told, json!({ "database": "sqlite", "migrations": steps }));
    // In a folder of its own choice, and by the environment.
    desk.run(&["db", "migrate", "--data", "a/b"]).ends(0);
    assert!(desk.path("a/b/toolbay.db").is_file());
    let by_environment = desk.command(&["db", "status"]).env("TOOLBAY_DATABASE", "sqlite:copy.db").output().unwrap();
    assert!(by_environment.status.success());
}

#[test]
fn what_is_no_database_of_this_version_is_told() {
    let desk = Desk::new();
    fs::write(desk.path("empty.db"), "").unwrap();
    expect![[r"
        MIGRATION       STATE
        0001 begin      pending: toolbay db migrate applies it
        0002 suspended  pending: toolbay db migrate applies it
        0003 outcomes   pending: toolbay db migrate applies it
    "]]
    .assert_eq(&desk.run(&["db", "status", "--database", "sqlite:empty.db"]).ends(1).stdout);
    fs::write(desk.path("text.db"), "no database at all\n".repeat(100)).unwrap();
    desk.run(&["db", "status", "--database", "sqlite:text.db"]).refuses(&["not a database"]);
    desk.run(&["db", "status", "--database", "mysql://root:secret@localhost/x"]).refuses(&["sqlite:PATH"]);
    let away = desk.run(&["db", "status", "--database", "postgres://toolbay:secret@127.0.0.1:1/x"]);
    assert!(!away.stderr.contains("secret"), "{}", away.stderr);
    away.refuses(&["the store cannot be reached"]);
}

#[test]
fn postgresql_is_looked_after_alike_and_backed_up_by_its_own_means() {
    let Ok(url) = std::env::var("TOOLBAY_TEST_POSTGRES") else {
        println!("left out: no PostgreSQL in TOOLBAY_TEST_POSTGRES; see scripts/postgres");
        return;
    };
    let desk = Desk::new();
    // The cluster's own first database, which no other test uses.
    desk.run(&["db", "migrate", "--database", &url]).ends(0);
    let told = desk.run(&["db", "status", "--json", "--database", &url]).ends(0).json();
    assert_eq!(told["database"], json!("postgres"));
    desk.run(&["db", "backup", "copy.db", "--database", &url]).refuses(&["pg_dump"]);
}
