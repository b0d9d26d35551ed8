//! Connections that can be cut on command: what a venue does to a client when its edge fails.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use watchbell_core::Millis;

use super::floor::Floor;

/// The switch of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Arc<CutState>);

#[derive(Debug)]
struct CutState {
    /// Bytes that may still be written.
    left: AtomicI64,
    /// End with a reset instead of an orderly close.
    reset: AtomicBool,
}

impl Default for CutState {
    fn default() -> Self {
        Self { left: AtomicI64::new(i64::MAX), reset: AtomicBool::new(false) }
    }
}

impl Cut {
    /// Lets `bytes` more through, then ends the connection.
    pub(super) fn after(&self, bytes: usize, reset: bool) {
        self.0.reset.store(reset, Ordering::Relaxed);
        self.0.left.store(bytes as i64, Ordering::Release);
    }
}

/// Who sent a request, and how to end that connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) cut: Cut,
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self { address: *stream.remote_addr(), cut: stream.io().cut.clone() }
    }
}

/// The listener: it closes a connection at once while the script says that the venue is down.
pub(super) struct Door {
    pub(super) tcp: TcpListener,
    pub(super) floor: Weak<Floor>,
}

impl Listener for Door {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok((tcp, address)) => {
                    let down = self.floor.upgrade().is_some_and(|f| f.is_down());
                    if down {
                        quietly(tcp.set_zero_linger());
                        continue;
                    }
                    quietly(tcp.set_nodelay(true));
                    return (Line { tcp, cut: Cut::default() }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "the venue simulator cannot accept a connection");
                    if let Some(floor) = self.floor.upgrade() {
                        floor.clock.sleep(Millis(100)).await;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A socket option that could not be set changes how a connection ends, not whether.
fn quietly(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "cannot set a socket option");
    }
}

/// A connection whose writing may be cut.
#[derive(Debug)]
pub(super) struct Line {
    tcp: TcpStream,
    cut: Cut,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.cut.0.left.load(Ordering::Acquire);
        if left == i64::MAX {
            return Pin::new(&mut self.tcp).poll_write(cx, buf);
        }
        if left <= 0 {
            if self.cut.0.reset.load(Ordering::Relaxed) {
                quietly(self.tcp.set_zero_linger());
            }
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = buf.len().min(left as usize);
        let written = Pin::new(&mut self.tcp).poll_write(cx, &buf[..most]);
        if let Poll::Ready(Ok(n)) = &written {
            self.cut.0.left.fetch_sub(*n as i64, Ordering::AcqRel);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cut.0.left.load(Ordering::Acquire) == i64::MAX {
            return Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| &**b);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
