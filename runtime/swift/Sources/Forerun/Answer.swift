import CForerun
import Foundation

/// One answer on its way from the core's loop to the stream.
final class Answer: @unchecked Sendable {
    private let session: Session
    private let continuation: AsyncThrowingStream<String, Error>.Continuation
    private let lock = NSLock()
    private var isUnderWay = false
    private var isCancelled = false
    private var decoder: OpaquePointer?
    private var endIds: [Int32] = []
    private var failure: Error?

    init(_ session: Session, _ continuation: AsyncThrowingStream<String, Error>.Continuation) {
        self.session = session
        self.continuation = continuation
    }

    deinit { forerun_decoder_release(decoder) }

    /// Ends the answer before its next step; from any thread. Does nothing to the session's other answers.
    func cancel() {
        lock.lock()
        defer { lock.unlock() }
        isCancelled = true
        if isUnderWay { forerun_cancel(session.generator, session.sequence) }
    }

    /// Runs the whole answer on the session's queue.
    func run(_ text: Text, _ prompt: [Int32], _ options: Options) throws {
        endIds = text.endIds
        try createDecoder(text, options.stop)
        try start(prompt, options)
        guard begin() else { return }
        defer { end() }
        var finish = FORERUN_FINISH_NONE
        let onTokens: forerun_on_tokens = { data, ids, drawn in
            Unmanaged<Answer>.fromOpaque(data!).takeUnretainedValue().take(ids!, drawn!)
        }
        let data = Unmanaged.passUnretained(self).toOpaque()
        try check(forerun_generate(session.generator, session.sequence, onTokens, data, &finish))
        if let failure { throw failure }
        var rest = forerun_piece()
        try check(forerun_decoder_flush(decoder, &rest))
        yield(rest)
    }

    private func createDecoder(_ text: Text, _ stop: [String]) throws {
        let stops = stop.map { UnsafePointer(strdup($0)) }
        defer { stops.forEach { free(UnsafeMutablePointer(mutating: $0)) } }
        try check(forerun_decoder_create(text.pointer, stops, Int32(stops.count), &decoder))
    }

    private func start(_ prompt: [Int32], _ options: Options) throws {
        var wanted = forerun_generation()
        wanted.sampling.temperature = options.temperature
        wanted.sampling.top_k = Int32(options.topK)
        wanted.sampling.top_p = options.topP
        wanted.sampling.seed = options.seed
        wanted.max_tokens = Int32(options.maxTokens)
        wanted.end_token_count = Int32(endIds.count)
        try options.drafter.withCString { drafter in
            try withOptionalCString(options.shape) { shape in
                try withOptionalCString(options.exit) { exit in
                    try endIds.withUnsafeBufferPointer { ends in
                        wanted.drafter = drafter
                        wanted.shape = shape
                        wanted.exit = exit
                        wanted.end_token_ids = ends.baseAddress
                        let count = Int32(prompt.count)
                        try check(
                            forerun_generate_start(session.generator, session.sequence, prompt, count, &wanted))
                    }
                }
            }
        }
    }

    /// False if it was cancelled before it started.
    private func begin() -> Bool {
        lock.lock()
        defer { lock.unlock() }
        isUnderWay = !isCancelled
        return isUnderWay
    }

    private func end() {
        lock.lock()
        defer { lock.unlock() }
        isUnderWay = false
    }

    /// The core's callback: shows the text of tokens; 1 ends the answer, after the tokens that `drawn` then counts.
    private func take(_ ids: UnsafePointer<Int32>, _ drawn: UnsafeMutablePointer<Int32>) -> Int32 {
        for index in 0..<Int(drawn.pointee) where !endIds.contains(ids[index]) {
            var piece = forerun_piece()
            do {
                try check(forerun_decoder_feed(decoder, ids[index], &piece))
            } catch {
                failure = error
                return 1
            }
            yield(piece)
            if piece.stopped != 0 {
                drawn.pointee = Int32(index + 1)
                return 1
            }
        }
        return 0
    }

    private func yield(_ piece: forerun_piece) {
        if piece.bytes == 0 { return }
        let utf8 = UnsafeRawBufferPointer(start: piece.utf8, count: piece.bytes)
        continuation.yield(String(decoding: utf8, as: UTF8.self))
    }
}
