//! What an application does without Freshet: an upsert in PostgreSQL, then a
//! SET in Redis. Nothing keeps the two in step if it fails in between.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::load::{CLIENTS, KEYS, UPSERT, VALUE, key, summary};
use super::report::Sample;
use super::support::client::encode;

/// Writes random keys from 50 connections to each server for some seconds.
pub fn run(postgres_url: &str, redis: SocketAddr, seconds: f64) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(
                postgres_url.to_owned(),
                redis,
                Duration::from_secs_f64(seconds),
            ));
        }
        let mut latencies = Vec::new();
        let mut rate = 0.0;
        while let Some(client) = clients.join_next().await {
            let (mine, elapsed) = client??;
            rate += mine.len() as f64 / elapsed.as_secs_f64();
            latencies.extend(mine);
        }
        let (mean, p50, p99) = summary(latencies)?;
        Ok(Sample {
            rate,
            mean,
            p50,
            p99,
        })
    })
}

async fn client(
    postgres_url: String,
    redis: SocketAddr,
    limit: Duration,
) -> Result<(Vec<f64>, Duration)> {
    let (sql, connection) = tokio_postgres::connect(&postgres_url, NoTls).await?;
    let driver = tokio::spawn(connection);
    let upsert = sql.prepare(UPSERT).await?;
    let mut redis = TcpStream::connect(redis).await?;
    redis.set_nodelay(true)?;
    let value = vec![b'x'; VALUE];
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < limit {
        let key = key(rand::rng().random_range(0..KEYS));
        let sent = Instant::now();
        sql.execute(&upsert, &[&key.as_bytes(), &value]).await?;
        redis
            .write_all(&encode(&[b"SET".as_slice(), key.as_bytes(), &value]))
            .await?;
        let mut reply = [0; 5];
        redis.read_exact(&mut reply).await?;
        ensure!(reply == *b"+OK\r\n", "Redis refused a SET");
        latencies.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    let elapsed = start.elapsed();
    drop(sql);
    driver.await??;
    Ok((latencies, elapsed))
}
