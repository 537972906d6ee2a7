import CForerun
import Foundation

/// What an answer is asked to be; the specs are those of the command line. No drafter changes an answer.
public struct Options: Sendable {
    public var maxTokens = 256
    /// 0 takes the likeliest token.
    public var temperature = 0.0
    /// Only so many of the likeliest tokens are drawn from; 0 is all.
    public var topK = 0
    /// Only the likeliest tokens that have this probability together, above 0 and at most 1.
    public var topP = 1.0
    public var seed: UInt64 = 0
    public var drafter = "auto"
    /// nil is the drafter's own.
    public var shape: String?
    /// nil is never.
    public var exit: String?
    /// Texts that end the answer before them.
    public var stop: [String] = []

    public init() {}
}

/// A conversation: one sequence of tokens with its cache. Everything runs on a queue of its own, one answer after the
/// other. A prompt is always given whole; what the session holds of it already is not computed again.
public final class Session: @unchecked Sendable {
    let generator: OpaquePointer
    let sequence: Int32
    private let session: OpaquePointer
    private let text: Text
    private let queue = DispatchQueue(label: "ai.forerun.session")

    /// A session over a bundle, with a thread team of its own.
    ///
    /// - Parameters:
    ///   - capacity: tokens that prompt and answers may have together; 0 is the model's context length.
    ///   - threads: 0 is one per physical core.
    public init(_ bundle: ModelBundle, capacity: Int = 0, threads: Int = 0) throws {
        text = try Text(bundle)
        var options = forerun_session_options()
        options.capacity = Int32(capacity)
        options.threads = Int32(threads)
        var session: OpaquePointer?
        var generator: OpaquePointer?
        var sequence: Int32 = 0
        do {
            try check(forerun_session_create(bundle.pointer, &options, &session))
            try check(forerun_sequence_create(session, &sequence))
            try check(forerun_generator_create(session, &generator))
        } catch {
            forerun_session_release(session)
            throw error
        }
        self.session = session!
        self.generator = generator!
        self.sequence = sequence
    }

    deinit {
        forerun_generator_release(generator)
        forerun_session_release(session)
    }

    /// The answer to a conversation as it comes, in pieces of whole characters. Cancelling the task that reads it ends
    /// the answer before its next step.
    public func chat(_ messages: [Message], _ options: Options = Options()) -> AsyncThrowingStream<String, Error> {
        stream(options) { try self.text.encodeChat(messages) }
    }

    /// The text that continues a prompt; else as `chat`.
    public func generate(_ prompt: String, _ options: Options = Options()) -> AsyncThrowingStream<String, Error> {
        stream(options) { try self.text.encodePrompt(prompt) }
    }

    /// Forgets all tokens after the first `length`, once the answers asked for before are over.
    public func rewind(to length: Int) throws {
        try queue.sync { try check(forerun_rewind(session, sequence, Int32(length))) }
    }

    /// What the last answer did.
    public func statistics() throws -> forerun_statistics {
        try queue.sync {
            var found = forerun_statistics()
            try check(forerun_generate_statistics(generator, sequence, &found))
            return found
        }
    }

    /// Measures what calls of the model cost on this device; keep it in a file of the app.
    public func tune() throws -> forerun_costs {
        try queue.sync {
            var costs = forerun_costs()
            try check(forerun_tune(generator, sequence, &costs))
            return costs
        }
    }

    /// Plans with costs that were measured before.
    public func setCosts(_ costs: forerun_costs) throws {
        try queue.sync {
            var given = costs
            try check(forerun_set_costs(generator, &given))
        }
    }

    private func stream(
        _ options: Options, prompt: @escaping @Sendable () throws -> [Int32]
    ) -> AsyncThrowingStream<String, Error> {
        AsyncThrowingStream { continuation in
            let answer = Answer(self, continuation)
            continuation.onTermination = { _ in answer.cancel() }
            queue.async {
                do {
                    try answer.run(self.text, prompt(), options)
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }
}
