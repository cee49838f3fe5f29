//! Keys: who a presented key is, and from when on it is nobody's.

use std::time::Duration;

use toolbay::{Actor, ErrorKind, KeyWanted, NewKey, SecretProvider as _, StoredSecrets, TenantId, store::Role};
use toolbay_testkit::VirtualClock;

use super::{Database, admin, id};

fn wanted(role: Role, tenant: Option<&str>) -> KeyWanted {
    let tenant = tenant.map(|name| TenantId::new(name).unwrap());
    KeyWanted { role, tenant, label: "a test's".into(), expires_at: None, rate: None }
}

#[tokio::test]
async fn the_first_key_is_made_once() {
    let database = Database::new();
    let control = database.process(toolbay::builder()).await;
    let other = database.process(toolbay::builder()).await;
    let (one, two) = tokio::join!(control.first_key(), other.first_key());
    let made: Vec<NewKey> = [one, two].into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(made.len(), 1);
    assert!(control.first_key().await.unwrap().is_none());
    control.sync().await.unwrap();
    let principal = control.authenticate(&made[0].secret).unwrap();
    assert_eq!((principal.role, principal.tenant), (Role::Admin, None));
    // Nothing that is written down or shown has the key in it.
    let file = std::fs::read(database.folder.path().join("toolbay.db")).unwrap();
    let log = std::fs::read(database.folder.path().join("toolbay.db-wal")).unwrap_or_default();
    let (_, random) = made[0].secret.rsplit_once('_').unwrap();
    for bytes in [file, log] {
        assert!(!bytes.windows(random.len()).any(|window| window == random.as_bytes()));
    }
    assert!(!format!("{:?}", made[0]).contains(random));
}

#[tokio::test]
async fn only_a_whole_key_is_one() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let key = control.create_key(&admin(), wanted(Role::Tenant, Some("acme"))).await.unwrap();
    assert_eq!(key.secret.len(), "tbk_".len() + 12 + 1 + 43);
    let principal = control.authenticate(&key.secret).unwrap();
    assert_eq!((principal.role, principal.tenant), (Role::Tenant, Some(id("acme"))));
    let prefix = &key.secret[..17];
    let wrong = [
        String::new(),
        prefix.to_owned(),
        format!("{prefix}{}", "A".repeat(43)),
        format!("{}A", key.secret),
        format!(" {}", key.secret),
        key.secret[4..].to_owned(),
        key.secret.replace("tbk_", "TBK_"),
        key.secret.to_lowercase().to_uppercase(),
        "tbk_".repeat(1_000_000),
    ];
    for wrong in wrong {
        assert_eq!(control.authenticate(&wrong), None, "{}", wrong.len());
    }
}

#[tokio::test]
async fn a_key_ends_when_it_expires_is_revoked_or_its_tenant_is_suspended_or_gone() {
    let database = Database::new();
    let clock = VirtualClock::at_ms(1_000_000);
    let control = database.process(toolbay::builder().clock(clock.clone())).await;
    control.create_tenant(&admin(), &id("acme")).await.unwrap();
    let expires_at = Some(1_005_000);
    let brief = KeyWanted { expires_at, ..wanted(Role::Tenant, Some("acme")) };
    let brief = control.create_key(&admin(), brief).await.unwrap();
    let lasting = control.create_key(&admin(), wanted(Role::Tenant, Some("acme"))).await.unwrap();
    let is_one = |key: &NewKey| control.authenticate(&key.secret).is_some();
    clock.advance(Duration::from_millis(4_999));
    assert!(is_one(&brief) && is_one(&lasting));
    clock.advance(Duration::from_millis(1));
    assert!(!is_one(&brief) && is_one(&lasting));

    control.suspend_tenant(&admin(), &id("acme"), true, None).await.unwrap();
    assert!(!is_one(&lasting));
    control.suspend_tenant(&admin(), &id("acme"), false, None).await.unwrap();
    assert!(is_one(&lasting));

    let next = control.rotate_key(&admin(), lasting.row.id, 10_000).await.unwrap();
    assert!(is_one(&lasting) && is_one(&next));
    clock.advance(Duration::from_millis(10_000));
    assert!(!is_one(&lasting) && is_one(&next));

    control.revoke_key(&admin(), next.row.id).await.unwrap();
    assert!(!is_one(&next));
    control.revoke_key(&admin(), next.row.id).await.unwrap();

    let last = control.create_key(&admin(), wanted(Role::Tenant, Some("acme"))).await.unwrap();
    control.remove_tenant(&admin(), &id("acme"), None).await.unwrap();
    control.create_tenant(&admin(), &id("acme")).await.unwrap();
    assert!(!is_one(&last));
}

#[tokio::test]
async fn a_key_revoked_by_one_process_is_refused_by_another() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let other = database.process(toolbay::builder()).await;
    let key = control.create_key(&admin(), wanted(Role::Operator, None)).await.unwrap();
    assert_eq!(other.authenticate(&key.secret), None);
    other.sync().await.unwrap();
    assert_eq!(other.authenticate(&key.secret).unwrap().role, Role::Operator);
    control.revoke_key(&admin(), key.row.id).await.unwrap();
    other.sync().await.unwrap();
    assert_eq!(other.authenticate(&key.secret), None);
}

#[tokio::test]
async fn operators_make_keys_of_tenants_and_no_others() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let operator = Actor { role: Role::Operator, ..admin() };
    let admins = control.create_key(&admin(), wanted(Role::Admin, None)).await.unwrap();
    control.create_key(&operator, wanted(Role::Tenant, Some("acme"))).await.unwrap();
    for role in [Role::Operator, Role::Admin] {
        let refused = control.create_key(&operator, wanted(role, None)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::PermissionDenied);
    }
    assert_eq!(control.revoke_key(&operator, admins.row.id).await.unwrap_err().kind, ErrorKind::PermissionDenied);
    assert_eq!(control.rotate_key(&operator, admins.row.id, 0).await.unwrap_err().kind, ErrorKind::PermissionDenied);
    assert!(control.authenticate(&admins.secret).is_some());
    let bad = [
        (wanted(Role::Tenant, None), "InvalidArguments: a key of the role tenant is of one tenant: say which"),
        (
            wanted(Role::Admin, Some("acme")),
            "InvalidArguments: a key of this role is of no tenant: leave the tenant out, or take the role tenant",
        ),
        (wanted(Role::Tenant, Some("nobody")), "NotFound: there is no tenant called nobody"),
        (
            KeyWanted { label: "x".repeat(201), ..wanted(Role::Admin, None) },
            "InvalidArguments: a label has at most 200 characters, on one line",
        ),
        (KeyWanted { rate: Some(0), ..wanted(Role::Admin, None) }, "InvalidArguments: a rate is 1 or more"),
    ];
    for (wanted, told) in bad {
        assert_eq!(control.create_key(&admin(), wanted).await.unwrap_err().to_string(), told);
    }
}

#[tokio::test]
async fn a_secret_is_read_by_the_reference_that_the_operator_set() {
    use toolbay::{Control, ControlOptions, Scope, Secret, SecretName, ToolError, async_trait};

    struct Keeper;

    #[async_trait]
    impl toolbay::SecretProvider for Keeper {
        async fn secret(&self, _: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
            Secret::bounded(name, format!("the value of {name}")).map(Some)
        }
    }

    let database = Database::new();
    let secrets = StoredSecrets::new(Keeper);
    let options = ControlOptions { secrets: Some(secrets.clone()), ..ControlOptions::default() };
    let bay = toolbay::builder().secrets(secrets.clone()).build().unwrap();
    let control = Control::open(bay, database.store().await, options).await.unwrap();
    control.create_tenant(&admin(), &id("acme")).await.unwrap();
    let key = SecretName::new("STRIPE_KEY").unwrap();
    let read =
        async |tenant: &str| secrets.secret(&id(tenant), &key).await.unwrap().map(|secret| secret.expose().to_owned());
    // What the keeper has under the plugin's own name is not for the asking.
    assert_eq!(read("acme").await, None);
    control.put_secret(&admin(), &Scope::Global, "STRIPE_KEY", Some("SHARED".into())).await.unwrap();
    control
        .put_secret(&admin(), &Scope::tenant("acme").unwrap(), "STRIPE_KEY", Some("ACME_STRIPE".into()))
        .await
        .unwrap();
    assert_eq!(read("acme").await.as_deref(), Some("the value of ACME_STRIPE"));
    assert_eq!(read("globex").await.as_deref(), Some("the value of SHARED"));
    control.put_secret(&admin(), &Scope::Global, "STRIPE_KEY", None).await.unwrap();
    assert_eq!(read("globex").await, None);
    let bad = control.put_secret(&admin(), &Scope::Global, "../etc", None).await.unwrap_err();
    assert_eq!(bad.kind, ErrorKind::InvalidArguments);
}
