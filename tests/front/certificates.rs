//! TLS towards clients.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{Stack, process};

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments.split(' '));
    process::run(command).unwrap();
}

/// An authority, and a certificate of it for the server and one for a client.
fn make_certificates(folder: &Path) {
    let request = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder,
        &format!("{request} -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"),
    );
    std::fs::write(
        folder.join("names"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    for name in ["server", "client"] {
        openssl(
            folder,
            &format!("{request} -subj /CN={name} -keyout {name}.key -out {name}.csr"),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"
            ),
        );
    }
}

fn redis_cli(stack: &Stack, folder: &Path, options: &str, command: &str) -> anyhow::Result<String> {
    let mut cli = Command::new("timeout");
    cli.current_dir(folder)
        .args(["10", "redis-cli", "-h", "127.0.0.1", "-p"])
        .arg(stack.program.address().port().to_string())
        .args(options.split_whitespace())
        .args(command.split(' '));
    process::run(cli)
}

#[test]
fn clients_with_a_certificate_get_in_and_others_do_not() {
    let folder = TempDir::new().unwrap();
    make_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key, authority) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let settings = [
        ("listen.tls_certificate", certificate.as_str()),
        ("listen.tls_key", key.as_str()),
        ("listen.tls_client_ca", authority.as_str()),
    ];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let good = "--tls --cacert ca.pem --cert client.pem --key client.key";
    let cli = |options, command| redis_cli(&stack, folder.path(), options, command);
    assert_eq!(cli(good, "SET key value").unwrap().trim(), "OK");
    assert_eq!(cli(good, "GET key").unwrap().trim(), "value");
    let replied = |result: anyhow::Result<String>| result.is_ok_and(|text| text.contains("value"));
    assert!(!replied(cli("--tls --cacert ca.pem", "GET key")));
    assert!(!replied(cli("", "GET key")));
    assert_eq!(cli(good, "GET key").unwrap().trim(), "value");
}
