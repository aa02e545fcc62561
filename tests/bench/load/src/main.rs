//! Asks one thing again and again over keep-alive connections, and says how long the answers took.

use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Clone, Parser)]
#[command(about = "A closed-loop HTTP/1.1 load generator")]
struct Arguments {
    /// `127.0.0.1:8787`
    #[arg(long)]
    address: String,
    /// The path to post to.
    #[arg(long)]
    path: String,
    /// The bearer token. With several, the connections take turns.
    #[arg(long)]
    token: Vec<String>,
    /// The JSON body.
    #[arg(long)]
    body: String,
    /// Connections that ask at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// For how long.
    #[arg(long, default_value_t = 2_000)]
    milliseconds: u64,
}

#[derive(Default)]
struct Measured {
    micros: Vec<u64>,
    failed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let end = Instant::now() + Duration::from_millis(arguments.milliseconds);
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..arguments.connections)
        .map(|place| {
            let token = arguments.token.iter().cycle().nth(place).cloned().unwrap_or_default();
            local.spawn_local(connection(arguments.clone(), token, end))
        })
        .collect();
    let started = Instant::now();
    let mut all = Measured::default();
    local
        .run_until(async {
            for task in tasks {
                if let Ok(Ok(measured)) = task.await {
                    all.micros.extend(measured.micros);
                    all.failed += measured.failed;
                } else {
                    all.failed += 1;
                }
            }
        })
        .await;
    let seconds = started.elapsed();
    all.micros.sort_unstable();
    let at = |per_mille: usize| {
        let place = (all.micros.len() * per_mille / 1000).min(all.micros.len().saturating_sub(1));
        all.micros.get(place).copied().unwrap_or(0)
    };
    let report = serde_json::json!({
        "requests": all.micros.len(), "failed": all.failed, "milliseconds": seconds.as_millis(),
        "p50_us": at(500), "p99_us": at(990),
    });
    println!("{report}");
    Ok(())
}

async fn connection(
    arguments: Arguments,
    token: String,
    end: Instant,
) -> std::io::Result<Measured> {
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{}",
        arguments.path,
        arguments.address,
        token,
        arguments.body.len(),
        arguments.body
    );
    let mut stream = TcpStream::connect(&arguments.address).await?;
    stream.set_nodelay(true)?;
    let mut measured = Measured::default();
    let mut buffer = Vec::with_capacity(64 * 1024);
    while Instant::now() < end {
        let started = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let good = answer(&mut stream, &mut buffer).await?;
        if good {
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            measured.micros.push(micros);
        } else {
            measured.failed += 1;
        }
    }
    Ok(measured)
}

/// Reads one answer to its end; whether it was a 200.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    buffer.clear();
    let head_end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, buffer).await?;
    };
    let head =
        String::from_utf8_lossy(buffer.get(..head_end).unwrap_or_default()).to_ascii_lowercase();
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next());
    match length.and_then(|text| text.trim().parse::<usize>().ok()) {
        Some(length) => {
            while buffer.len() < head_end + length {
                more(stream, buffer).await?;
            }
        }
        // Chunked: the last chunk is empty.
        None => {
            while !buffer.ends_with(b"\r\n0\r\n\r\n") {
                more(stream, buffer).await?;
            }
        }
    }
    Ok(head.starts_with("http/1.1 200"))
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
