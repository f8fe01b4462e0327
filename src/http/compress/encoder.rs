//! The three codings behind one face: octets in, octets out.

use std::io::{self, Write as _};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, get_error_name};

use crate::wire::coding::Coding;

/// What a page of 50 KB costs on one core (a busy one, 2026), and what it becomes: zstd 0.13 ms and 34 %, br 0.8 ms and
/// 32 %, gzip 0.5 ms and 33 %. One level more is twice the work for a hundredth.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: i32 = 4;
const GZIP_LEVEL: u32 = 5;
/// How far back they look: 256 KiB, and gzip the 32 KiB that there are. With its tables a long answer holds 1.3 MiB.
const WINDOW_BITS: u32 = 18;
const GZIP_WINDOW_BITS: u8 = 15;
const ZSTD_TABLE_BITS: u32 = 15;
/// The least room for what comes out, in octets.
const ROOM: usize = 1024;
/// The buffer between brotli's encoder and the output.
const BROTLI_BUFFER: usize = 4096;

/// A body's encoder.
pub(in crate::http) enum Encoder {
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstandard(CCtx<'static>),
    Gzip(Compress),
}

/// What is due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Whatever the encoder gives.
    Whatever,
    /// Everything that was put in, so that the client can read it.
    Everything,
    /// The same, and the end.
    End,
}

impl Encoder {
    /// An encoder for a body of this length, where that is known: a short one takes less memory.
    pub(super) fn new(coding: Coding, length: Option<u64>) -> io::Result<Self> {
        Ok(match coding {
            Coding::Brotli => Self::Brotli(Box::new(brotli(length))),
            Coding::Zstandard => Self::Zstandard(zstandard(length)?),
            Coding::Gzip => Self::Gzip(Compress::new_gzip(Compression::new(GZIP_LEVEL), GZIP_WINDOW_BITS)),
        })
    }

    /// Puts octets in, and takes what comes out of it; often nothing.
    pub(super) fn write(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        self.run(input, Due::Whatever)
    }

    /// Takes all that is still in there.
    pub(super) fn flush(&mut self) -> io::Result<Vec<u8>> {
        self.run(&[], Due::Everything)
    }

    /// The same, and ends the body.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli(writer) => Ok(writer.into_inner()),
            mut other => other.run(&[], Due::End),
        }
    }

    fn run(&mut self, input: &[u8], due: Due) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli(writer) => {
                writer.write_all(input)?;
                if due != Due::Whatever {
                    writer.flush()?;
                }
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Zstandard(context) => run_zstandard(context, input, due),
            Self::Gzip(state) => run_gzip(state, input, due),
        }
    }
}

fn brotli(length: Option<u64>) -> CompressorWriter<Vec<u8>> {
    let bits =
        length.map_or(WINDOW_BITS, |length| (u64::BITS - length.leading_zeros()).clamp(10, WINDOW_BITS));
    let parameters = BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: i32::try_from(bits).unwrap_or_default(),
        size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default(),
        ..BrotliEncoderParams::default()
    };
    CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &parameters)
}

fn zstandard(length: Option<u64>) -> io::Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    for parameter in [
        CParameter::CompressionLevel(ZSTD_LEVEL),
        CParameter::WindowLog(WINDOW_BITS),
        CParameter::HashLog(ZSTD_TABLE_BITS),
        CParameter::ChainLog(ZSTD_TABLE_BITS),
    ] {
        context.set_parameter(parameter).map_err(zstandard_error)?;
    }
    if length.is_some() {
        context.set_pledged_src_size(length).map_err(zstandard_error)?;
    }
    Ok(context)
}

fn run_zstandard(context: &mut CCtx<'static>, input: &[u8], due: Due) -> io::Result<Vec<u8>> {
    let directive = match due {
        Due::Whatever => Directive::ZSTD_e_continue,
        Due::Everything => Directive::ZSTD_e_flush,
        Due::End => Directive::ZSTD_e_end,
    };
    let (mut from, mut out) = (InBuffer::around(input), Vec::new());
    loop {
        out.reserve(ROOM);
        let at = out.len();
        let mut to = OutBuffer::around_pos(&mut out, at);
        let left = context.compress_stream2(&mut to, &mut from, directive).map_err(zstandard_error)?;
        if from.pos() == input.len() && (left == 0 || due == Due::Whatever) {
            return Ok(out);
        }
    }
}

fn zstandard_error(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

fn run_gzip(state: &mut Compress, mut input: &[u8], due: Due) -> io::Result<Vec<u8>> {
    let flush = match due {
        Due::Whatever => FlushCompress::None,
        Due::Everything => FlushCompress::Sync,
        Due::End => FlushCompress::Finish,
    };
    let mut out = Vec::new();
    loop {
        out.reserve(ROOM);
        let before = state.total_in();
        let status = state.compress_vec(input, &mut out, flush)?;
        let taken = usize::try_from(state.total_in() - before).unwrap_or(usize::MAX);
        input = input.get(taken..).unwrap_or_default();
        // Room that is left over says that nothing more is due.
        let settled = input.is_empty() && out.len() < out.capacity() && due != Due::End;
        if settled || status == Status::StreamEnd {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::coding::BY_WORK;

    /// What a client makes of it; what is missing at the end is no error, so that an unfinished body can be looked at.
    fn decoded(coding: Coding, octets: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = match coding {
            Coding::Brotli => brotli::Decompressor::new(octets, 4096).read_to_end(&mut plain),
            Coding::Zstandard => zstd::stream::read::Decoder::new(octets).unwrap().read_to_end(&mut plain),
            Coding::Gzip => flate2::read::GzDecoder::new(octets).read_to_end(&mut plain),
        };
        plain
    }

    #[test]
    fn what_was_flushed_can_be_read() {
        for coding in BY_WORK {
            let mut encoder = Encoder::new(coding, None).unwrap();
            let (mut sent, mut put) = (Vec::new(), Vec::new());
            for text in ["data: one\n", "data: two\n", &"three ".repeat(9_000)] {
                put.extend_from_slice(text.as_bytes());
                sent.extend(encoder.write(text.as_bytes()).unwrap());
                sent.extend(encoder.flush().unwrap());
                assert!(decoded(coding, &sent) == put, "{coding:?} holds something back");
            }
            let idle = encoder.flush().unwrap();
            assert!(idle.len() < 8, "{coding:?} says {} octets of nothing", idle.len());
        }
    }

    #[test]
    fn an_empty_body_is_one_too() {
        for coding in BY_WORK {
            for length in [None, Some(0)] {
                let sent = Encoder::new(coding, length).unwrap().finish().unwrap();
                assert!(!sent.is_empty() && decoded(coding, &sent).is_empty());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_put_in_comes_out(
            pieces in proptest::collection::vec((0..70_000_usize, any::<u8>(), any::<bool>()), 0..6),
            known in any::<bool>(),
        ) {
            let total: usize = pieces.iter().map(|(length, ..)| length).sum();
            for coding in BY_WORK {
                let mut encoder = Encoder::new(coding, known.then_some(total as u64)).unwrap();
                let (mut sent, mut put) = (Vec::new(), Vec::new());
                for (length, seed, flush) in &pieces {
                    let piece: Vec<u8> = (0..*length).map(|at| ((at * usize::from(*seed)) >> 6).to_le_bytes()[0]).collect();
                    sent.extend(encoder.write(&piece).unwrap());
                    if *flush {
                        sent.extend(encoder.flush().unwrap());
                    }
                    put.extend(piece);
                }
                sent.extend(encoder.finish().unwrap());
                prop_assert!(decoded(coding, &sent) == put, "{:?}", coding);
            }
        }
    }
}
