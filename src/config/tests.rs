use super::*;

const SHIPPED: &str = include_str!("../../proxy.toml");

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn mistakes(source: &str, variables: &[(&str, &str)]) -> Vec<(Place, String)> {
    Config::parse("proxy.toml", source, &environment(variables))
        .unwrap_err()
        .mistakes
        .into_iter()
        .map(|mistake| (mistake.place, mistake.setting))
        .collect()
}

#[test]
fn the_shipped_file_is_the_default() {
    let shipped = Config::parse("proxy.toml", SHIPPED, &Environment::new()).unwrap();
    assert_eq!(shipped, Config::default());
}

#[test]
fn the_shipped_file_names_and_describes_every_setting() {
    let mut section = "";
    let mut written = Vec::new();
    let mut before = "";
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(before.starts_with('#'), "{section}.{name} has no comment");
            written.push((section, name));
        }
        before = line;
    }
    let expected: Vec<_> = Config::SETTINGS
        .iter()
        .flat_map(|(section, names)| names.iter().map(move |name| (*section, *name)))
        // A table of its own in the file.
        .filter(|setting| *setting != ("auth", "users"))
        .collect();
    assert_eq!(written, expected);
    assert!(SHIPPED.contains("[auth.users]"));
}

#[test]
fn all_mistakes_are_reported_with_line_and_name() {
    let source = "[listen]\naddress = \"nowhere\"\nport = 6380\n\n[commit]\nmax_batch_units = 0\n\
                  queue_bytes = \"lots\"\n\n[comit]\nx = 1\n";
    let found = mistakes(
        source,
        &[("FRESHET_REDIS_URL", "http://x"), ("FRESHET_REDIS_ULR", "")],
    );
    let expected = [
        (Place::Line(2), "listen.address"),
        (Place::Line(3), "listen.port"),
        (Place::Line(6), "commit.max_batch_units"),
        (Place::Line(7), "commit.queue_bytes"),
        (Place::Line(9), "comit"),
        (Place::Variable("FRESHET_REDIS_URL".into()), "redis.url"),
        (Place::Variable("FRESHET_REDIS_ULR".into()), "redis.ulr"),
    ];
    assert_eq!(
        found,
        expected.map(|(place, name)| (place, name.to_owned()))
    );
}

#[test]
fn a_mistake_of_syntax_does_not_hide_the_others() {
    let found = mistakes("[listen]\naddress = \nmax_clients = 0\n", &[]);
    assert!(
        found.contains(&(Place::Line(2), String::new())),
        "{found:?}"
    );
    assert!(
        found.contains(&(Place::Line(3), "listen.max_clients".into())),
        "{found:?}"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let variables = environment(&[
        ("FRESHET_LISTEN_ADDRESS", "0.0.0.0:7000"),
        ("FRESHET_COMMIT_QUEUE_UNITS", "1_000"),
        ("FRESHET_AUTH_USERS", "{ app = \"secret\" }"),
        ("FRESHET_LISTEN_UNIX_SOCKET", ""),
        // What Kubernetes injects for a service of this name.
        ("FRESHET_PORT_6380_TCP", "tcp://10.0.0.1:6380"),
    ]);
    let source = "[listen]\naddress = \"127.0.0.1:1\"\nunix_socket = \"/run/x\"\n";
    let config = Config::parse("proxy.toml", source, &variables).unwrap();
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:7000");
    assert_eq!(config.commit.queue_units, 1000);
    assert!(
        config.auth.users["app"]
            .password
            .as_ref()
            .unwrap()
            .matches(b"secret")
    );
    assert_eq!(config.listen.unix_socket, None);
}

#[test]
fn users_have_rules_beside_their_password() {
    let source = "[auth.users]\nreader = { password = \"p\", rules = \"~a:* +@read\" }\n\
                  anyone = { rules = \"nopass ~* +get\" }\n";
    let config = Config::parse("proxy.toml", source, &environment(&[])).unwrap();
    let reader = &config.auth.users["reader"];
    assert_eq!(reader.rules.as_deref(), Some("~a:* +@read"));
    assert!(reader.password.as_ref().unwrap().matches(b"p"));
    assert_eq!(config.auth.users["anyone"].password, None);
    for (user, part) in [
        (
            "{ rules = \"~* >clear\" }",
            "must have its password in `password`",
        ),
        (
            "{ password = \"a\", password_file = \"b\" }",
            "must have one of",
        ),
        ("{ password = \"a\", role = \"b\" }", "has `role`"),
        ("{ }", "must have either `password`"),
        ("{ rules = 1 }", "must have a string as `rules`"),
    ] {
        let source = format!("[auth.users]\nu = {user}\n");
        let error = Config::parse("proxy.toml", &source, &environment(&[])).unwrap_err();
        assert!(error.to_string().contains(part), "{user}: {error}");
    }
}

#[test]
fn secrets_come_from_files_without_the_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "hunter2\n").unwrap();
    let path = path.to_str().unwrap();
    let source = format!(
        "[postgres]\npassword_file = \"{path}\"\n[auth.users]\napp = {{ password_file = \"{path}\" }}\n"
    );
    let variables = environment(&[
        ("FRESHET_REDIS_PASSWORD_FILE", path),
        ("FRESHET_AUTH_PASSWORD_FILE", path),
    ]);
    let config = Config::parse("proxy.toml", &source, &variables).unwrap();
    assert_eq!(config.postgres.password, Some(Secret::new("hunter2")));
    assert_eq!(config.redis.password, Some(Secret::new("hunter2")));
    assert!(config.auth.password.unwrap().matches(b"hunter2"));
    assert!(
        config.auth.users["app"]
            .password
            .as_ref()
            .unwrap()
            .matches(b"hunter2")
    );

    let url = folder.path().join("url");
    std::fs::write(&url, "redis://cache:1\n").unwrap();
    let variables = environment(&[("FRESHET_REDIS_URL_FILE", url.to_str().unwrap())]);
    let config = Config::parse("proxy.toml", "", &variables).unwrap();
    assert_eq!(config.redis.url, RedisUrl::tcp("cache", 1));

    let missing = mistakes("[redis]\npassword_file = \"/nonexistent\"\n", &[]);
    assert_eq!(
        missing,
        [(Place::Line(2), "redis.password_file".to_owned())]
    );
}

#[test]
fn settings_that_belong_together_are_checked_together() {
    let source = "[listen]\ntls_certificate = \"a.pem\"\n[fence]\nrenewal = \"20s\"\n";
    let expected = [
        (Place::Line(2), "listen.tls_certificate".to_owned()),
        (Place::Line(4), "fence.renewal".to_owned()),
    ];
    assert_eq!(mistakes(source, &[]), expected);
}

#[test]
fn differences_say_what_a_reload_can_change() {
    let old = Config::default();
    let mut new = Config::default();
    new.listen.max_clients = 5;
    new.postgres.pool_size = 9;
    let found: Vec<_> = old
        .differences(&new)
        .into_iter()
        .map(|d| (d.section, d.name, d.takes_effect))
        .collect();
    let expected = [
        ("listen", "max_clients", TakesEffect::Live),
        ("postgres", "pool_size", TakesEffect::AtRestart),
    ];
    assert_eq!(found, expected);
    let merged = old.with_live_settings_of(&new);
    assert_eq!(merged.listen.max_clients, 5);
    assert_eq!(merged.postgres.pool_size, old.postgres.pool_size);
}

#[test]
fn all_mistakes_of_routes_are_reported_with_line_and_name() {
    let source = "[[route]]\nmatch = \"a:*\"\nstrategy = \"atomc\"\nttl = \"0\"\n\n\
                  [[route]]\nmatch = \"a:b*\"\n\n[[route]]\nstrategy = \"write-behnd\"\n\
                  ttl_jitter = 95\ncolour = 1\n\n[[route]]\nmatch = \"x[\"\n\
                  [[route]]\nmatch = \"c\"\nstrategy = \"cache-only\"\nfill_limit = \"1MB\"\n\
                  ttl_jitter = 5\n";
    let expected = [
        (3, "route[1].strategy"),
        (4, "route[1].ttl"),
        (7, "route[2].match"),
        (9, "route[3]"),
        (10, "route[3].strategy"),
        (11, "route[3].ttl_jitter"),
        (12, "route[3].colour"),
        (15, "route[4].match"),
        (19, "route[5].fill_limit"),
        (20, "route[5].ttl_jitter"),
    ];
    let expected = expected.map(|(line, name)| (Place::Line(line), name.to_owned()));
    assert_eq!(mistakes(source, &[]), expected);
    let wrong = mistakes("[route]\nmatch = \"a\"\n", &[]);
    assert_eq!(wrong, [(Place::Line(1), "route".to_owned())]);
}

fn routes(source: &str) -> RouteList {
    Config::parse("", source, &Environment::new())
        .unwrap()
        .route
}

#[test]
fn a_change_that_takes_keys_from_the_cache_alone_is_known() {
    const SOLE: &str = "[[route]]\nmatch = \"c:*\"\nstrategy = \"cache-only\"\n";
    const OTHER: &str = "[[route]]\nmatch = \"o:*\"\nstrategy = \"eventual\"\n";
    const INSIDE: &str = "[[route]]\nmatch = \"c:x*\"\nstrategy = \"eventual\"\n";
    let abandons = |old: &str, new: &str| routes(old).abandons(&routes(new)).is_some();
    assert!(!abandons(SOLE, SOLE));
    assert!(!abandons(SOLE, &format!("{OTHER}{SOLE}")));
    assert!(!abandons(OTHER, SOLE));
    assert!(!abandons(
        &format!("{INSIDE}{SOLE}"),
        &format!("{INSIDE}{SOLE}")
    ));
    assert!(abandons(SOLE, ""));
    assert!(abandons(SOLE, OTHER));
    assert!(abandons(SOLE, &format!("{INSIDE}{SOLE}")));
    assert!(abandons(SOLE, &SOLE.replace("cache-only", "atomic")));
}

#[test]
fn write_behind_routes_need_a_journal_of_their_own() {
    let route = "[[route]]\nmatch = \"w:*\"\nstrategy = \"write-behind\"\n";
    let found = mistakes(route, &[]);
    assert_eq!(found, [(Place::Line(3), "route[1].strategy".to_owned())]);
    let cache = "[redis]\nurl = \"redis://127.0.0.1:6390\"\n[write_behind]\nurl = \"redis://127.0.0.1:6390\"\n";
    let found = mistakes(&format!("{cache}{route}"), &[]);
    assert_eq!(found, [(Place::Line(4), "write_behind.url".to_owned())]);
    let own = "[write_behind]\nurl = \"redis://127.0.0.1:6391\"\n";
    let parsed = |text: &str| Config::parse("", text, &Environment::new());
    let one = parsed(&format!("{own}{route}")).unwrap();
    // What cannot take a key away from it, or bring one, counts for nothing.
    let later = "[[route]]\nmatch = \"x:*\"\nstrategy = \"eventual\"\n";
    let two = parsed(&format!("{own}{route}{later}")).unwrap();
    assert_eq!(one.route.behind_digest(), two.route.behind_digest());
    let other = parsed(&format!("{own}{later}{route}")).unwrap();
    assert_ne!(one.route.behind_digest(), other.route.behind_digest());
    assert_eq!(parsed(later).unwrap().route.behind_digest(), "");
    let found = mistakes(&format!("{own}{route}ttl = \"1h\"\n"), &[]);
    assert_eq!(found, [(Place::Line(6), "route[1].ttl".to_owned())]);
}
