//! A proxy before a node's front end that loses answers, as real networks do, or lies, as a
//! stranger's node may.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;

use serde_json::Value;

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing: the answer passes.
    None,
    /// The connection closes before the node sees the call.
    Dropped,
    /// The node performs the call, and the connection closes without an answer.
    AnswerLost,
    /// The node performs the call, and half of the answer's body arrives.
    AnswerHalved,
    /// The node performs the call, and the proxy answers with HTTP status 504.
    GatewayTimeout,
    /// The answer arrives changed.
    Changed(fn(Value) -> Value),
}

/// Starts a proxy before the node at `url`; `fault` decides what happens to a call by its body.
/// Returns the proxy's address. Its threads end with the test's process.
pub(crate) fn start(url: &str, fault: impl FnMut(&str) -> Fault + Send + 'static) -> String {
    let upstream = url
        .trim_start_matches("http://")
        .trim_end_matches("/rpc")
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let fault = Mutex::new(fault);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is the client's affair.
            let _ = serve(&stream, &upstream, &fault);
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    format!("http://{address}/rpc")
}

/// Serves one call of a connection; the client opens another for the next.
fn serve(
    mut client: &TcpStream,
    upstream: &str,
    fault: &Mutex<impl FnMut(&str) -> Fault>,
) -> io::Result<()> {
    let (_, body) = message(client)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let fault = (fault.lock().expect("no panic in a fault"))(&text);
    if matches!(fault, Fault::Dropped) {
        return Ok(());
    }
    let mut node = TcpStream::connect(upstream)?;
    write!(
        node,
        "POST /rpc HTTP/1.1\r\nhost: {upstream}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    node.write_all(&body)?;
    let (_, answer) = message(&node)?;
    let head = |status: &str, length: usize| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    match fault {
        Fault::Dropped | Fault::AnswerLost => Ok(()),
        Fault::None => {
            client.write_all(head("200 OK", answer.len()).as_bytes())?;
            client.write_all(&answer)
        }
        Fault::Changed(change) => {
            let answer = serde_json::from_slice(&answer).map_err(io::Error::other)?;
            let answer = change(answer).to_string();
            client.write_all(head("200 OK", answer.len()).as_bytes())?;
            client.write_all(answer.as_bytes())
        }
        Fault::AnswerHalved => {
            client.write_all(head("200 OK", answer.len()).as_bytes())?;
            client.write_all(&answer[..answer.len() / 2])
        }
        Fault::GatewayTimeout => {
            let page = b"<html>504 Gateway Time-out</html>";
            client.write_all(head("504 Gateway Timeout", page.len()).as_bytes())?;
            client.write_all(page)
        }
    }
}

/// The head and the body of an HTTP message that has a content length.
fn message(stream: &TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        let is_end = line.trim().is_empty();
        head.push_str(&line);
        if is_end {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((head, body))
}
