//! The chunked transfer coding (RFC 9112 section 7.1): a decoder that a lying chunk cannot fool, and the encoder's lines.

use bytes::buf::Chain;
use bytes::{Buf, Bytes, BytesMut};

use super::head::{Head, Scanner};
use super::octets::is_value;

/// The longest chunk-size line with its extensions, in octets.
const MAX_SIZE_LINE: usize = 256;
/// The longest trailer section, in octets.
const MAX_TRAILERS: usize = 8 * 1024;

/// Chunks that are shorter are put together where they have come already: each piece costs more than its octets.
const SHORT: usize = 1024;
/// How long what is put together becomes, in octets.
const TOGETHER: usize = 16 * 1024;

/// Where the decoder stands.
#[derive(Debug)]
enum State {
    /// Before a chunk-size line.
    Size,
    /// Inside a chunk, with so many octets to come.
    Data(u64),
    /// Before the CRLF behind a chunk's data.
    DataEnd,
    /// In the trailer section.
    Trailers(Scanner),
    /// Behind the end.
    Done,
}

/// Turns a chunked body's bytes into its data.
#[derive(Debug)]
pub struct Decoder(State);

/// What the decoder found.
#[derive(Debug)]
pub enum Decoded {
    /// Data; never empty.
    Data(Bytes),
    /// The end, with the trailers.
    End(Head),
    /// More bytes are needed.
    More,
}

impl Default for Decoder {
    fn default() -> Self {
        Self(State::Size)
    }
}

impl Decoder {
    /// Takes what it can from `buffer`. The error says what is wrong with the coding.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, &'static str> {
        if !self.reach_data(buffer)? {
            return self.decode_end(buffer);
        }
        let short = self.there(buffer) < SHORT;
        let mut data = self.take_data(buffer);
        // What is wrong behind them is told at the next call, which finds the same.
        while short && data.len() < TOGETHER && self.is_at_short(buffer) {
            data.extend_from_slice(&self.take_data(buffer));
        }
        Ok(Decoded::Data(data.freeze()))
    }

    /// Goes on to a chunk's data; false where there is none yet, or no more.
    fn reach_data(&mut self, buffer: &mut BytesMut) -> Result<bool, &'static str> {
        loop {
            match &self.0 {
                State::Size => match take_size(buffer)? {
                    None => return Ok(false),
                    Some(0) => self.0 = State::Trailers(Scanner::default()),
                    Some(size) => self.0 = State::Data(size),
                },
                State::Data(_) => return Ok(!buffer.is_empty()),
                State::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.0 = State::Size;
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err("a chunk is longer than it says"),
                },
                State::Trailers(_) | State::Done => return Ok(false),
            }
        }
    }

    /// Whether a chunk's data comes next that is short.
    fn is_at_short(&mut self, buffer: &mut BytesMut) -> bool {
        self.reach_data(buffer) == Ok(true) && self.there(buffer) < SHORT
    }

    /// How much of the current chunk's data is there.
    fn there(&self, buffer: &BytesMut) -> usize {
        match self.0 {
            State::Data(left) => usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len()),
            _ => 0,
        }
    }

    fn take_data(&mut self, buffer: &mut BytesMut) -> BytesMut {
        let data = buffer.split_to(self.there(buffer));
        if let State::Data(left) = &mut self.0 {
            *left -= data.len() as u64;
            if *left == 0 {
                self.0 = State::DataEnd;
            }
        }
        data
    }

    fn decode_end(&mut self, buffer: &mut BytesMut) -> Result<Decoded, &'static str> {
        let State::Trailers(scanner) = &mut self.0 else { return Ok(Decoded::More) };
        let Some(trailers) = take_trailers(scanner, buffer)? else { return Ok(Decoded::More) };
        self.0 = State::Done;
        Ok(Decoded::End(trailers))
    }
}

/// A piece of a body, and what closes its chunk: there are readers that give nothing away before they have that.
pub type Piece = Chain<Bytes, &'static [u8]>;

/// A piece that is a chunk of its own; the line before it goes to `front`.
pub fn chunk(data: Bytes, front: &mut BytesMut) -> Piece {
    size_line(data.len(), front);
    data.chain(b"\r\n")
}

/// A piece of a body that is not chunked.
pub fn plain(data: Bytes) -> Piece {
    data.chain(b"")
}

/// The line before a chunk of `size` octets.
fn size_line(size: usize, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let significant = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..significant).rev() {
        let digit = DIGITS.get((size >> (place * 4)) & 15).copied().unwrap_or(b'0');
        out.extend_from_slice(&[digit]);
    }
    out.extend_from_slice(b"\r\n");
}

fn take_size(buffer: &mut BytesMut) -> Result<Option<u64>, &'static str> {
    let Some(feed) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > MAX_SIZE_LINE { Err("a chunk-size line is too long") } else { Ok(None) };
    };
    let line = buffer.get(..feed).unwrap_or_default();
    let line = line.strip_suffix(b"\r").ok_or("a chunk-size line ends without a carriage return")?;
    if line.len() > MAX_SIZE_LINE {
        return Err("a chunk-size line is too long");
    }
    let size = parse_size(line)?;
    buffer.advance(feed + 1);
    Ok(Some(size))
}

/// Hexadecimal digits, and extensions that are looked at only so far that they hide nothing.
fn parse_size(line: &[u8]) -> Result<u64, &'static str> {
    let end = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extensions) = line.split_at(end);
    if size.is_empty() || size.len() > 15 {
        return Err("a chunk size is not a number");
    }
    if !matches!(extensions.trim_ascii_start().first(), None | Some(b';')) || !is_value(extensions) {
        return Err("a chunk size is not a number");
    }
    if extensions.first().is_some_and(u8::is_ascii_whitespace) {
        return Err("a chunk size has white space behind it");
    }
    Ok(size.iter().fold(0, |n, digit| n * 16 + u64::from(hex_value(*digit))))
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn take_trailers(scanner: &mut Scanner, buffer: &mut BytesMut) -> Result<Option<Head>, &'static str> {
    let Some(end) = scanner.find_end(buffer).map_err(|_| "a trailer is malformed")? else {
        return if buffer.len() > MAX_TRAILERS { Err("the trailers are too long") } else { Ok(None) };
    };
    if end > MAX_TRAILERS {
        return Err("the trailers are too long");
    }
    let mut head = Head::default();
    head.parse_trailers(&buffer.split_to(end)).map_err(|_| "a trailer is malformed")?;
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Body = (Vec<u8>, Vec<String>, Vec<u8>);

    /// Decodes `text` given in pieces of `step`: the data, the trailers, and what was left over.
    fn decode(text: &[u8], step: usize) -> Result<Body, &'static str> {
        let (mut decoder, mut buffer, mut data) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut pieces = text.chunks(step);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                Decoded::End(head) => {
                    let rest = [buffer.to_vec(), pieces.flatten().copied().collect()].concat();
                    return Ok((data, head.fields().map(|f| f.to_string()).collect(), rest));
                }
                Decoded::More => buffer.extend_from_slice(pieces.next().ok_or("cut")?),
            }
        }
    }

    #[test]
    fn data_trailers_and_what_comes_behind() {
        let text = b"5\r\nhello\r\n00A;name=value\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET";
        for step in 1..text.len() {
            let (data, trailers, rest) = decode(text, step).unwrap();
            assert_eq!(
                (data.as_slice(), rest.as_slice()),
                (&b"hello0123456789"[..], &b"GET"[..]),
                "step {step}"
            );
            assert_eq!(trailers, ["X-Sum: 1"]);
        }
    }

    #[test]
    fn lies_are_refused() {
        for text in [
            &b"4\r\nhello\r\n0\r\n\r\n"[..],
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5 ;a\r\nhello\r\n",
            b"5;a\x00b\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"\r\n",
            b"g\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000000000000\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\n X: 1\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\n\r\n",
        ] {
            let got = decode(text, text.len());
            assert!(got.is_err() && got != Err("cut"), "{} {got:?}", text.escape_ascii());
        }
        assert_eq!(decode(&[b'1'; 300], 300), Err("a chunk-size line is too long"));
    }

    #[test]
    fn short_chunks_come_as_one_piece_and_long_ones_as_they_are() {
        let short = "1\r\na\r\n".repeat(1000);
        let long = format!("1000\r\n{}\r\n", "b".repeat(4096));
        let mut buffer = BytesMut::from(format!("{long}{short}{long}{short}zz\r\n").as_bytes());
        let mut decoder = Decoder::default();
        let mut lengths = Vec::new();
        let error = loop {
            match decoder.decode(&mut buffer) {
                Ok(Decoded::Data(bytes)) => lengths.push(bytes.len()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!((lengths, error), (vec![4096, 1000, 4096, 1000], "a chunk size is not a number"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
            step in 1usize..64,
        ) {
            let mut text = BytesMut::new();
            for chunk in &chunks {
                size_line(chunk.len(), &mut text);
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&text, step).unwrap().0, chunks.concat());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
            let _ = decode(&bytes, step);
        }
    }
}
