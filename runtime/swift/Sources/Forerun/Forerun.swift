import CForerun
import Foundation

/// A call of the core failed: its `forerun_status`, and its words on what was wrong and how to mend it.
public struct ForerunError: Error, CustomStringConvertible {
    public let status: Int32
    public let message: String
    public var description: String { message }
}

func check(_ status: Int32) throws {
    if status == Int32(FORERUN_OK.rawValue) { return }
    throw ForerunError(status: status, message: String(cString: forerun_last_error()))
}

/// A compiled model, opened for this processor. Read-only: any number of sessions and threads share it.
public final class ModelBundle: @unchecked Sendable {
    let pointer: OpaquePointer

    /// Opens the bundle in folder `path` and loads its library for `target`; nil takes the first one that runs here.
    public init(path: String, target: String? = nil) throws {
        var opened: OpaquePointer?
        try withOptionalCString(target) { try check(forerun_bundle_open(path, $0, &opened)) }
        pointer = opened!
    }

    /// Opens the model in folder `path` of a package of `forerun package`, run by the first of the app's programs that
    /// this processor runs: `forerun_NAME_programs` and `FORERUN_NAME_PROGRAMS` of the package's header, which have to
    /// outlive the bundle. With `target` of those for it alone, such as one for a device beside the processor.
    public init(path: String, programs: UnsafePointer<forerun_linked>, count: Int, target: String? = nil) throws {
        var opened: OpaquePointer?
        try withOptionalCString(target) {
            try check(forerun_bundle_open_linked_for(path, programs, Int32(count), $0, &opened))
        }
        pointer = opened!
    }

    deinit { forerun_bundle_release(pointer) }

    /// Name of the target that it runs for.
    public var target: String { String(cString: forerun_bundle_target(pointer)) }
}

/// One message of a conversation.
public struct Message: Sendable {
    public enum Role: String, Sendable {
        case system, user, assistant
    }

    public let role: Role
    public let content: String

    public init(_ role: Role, _ content: String) {
        self.role = role
        self.content = content
    }
}

/// Tokenizer and chat template of a bundle.
final class Text: @unchecked Sendable {
    let pointer: OpaquePointer
    let endIds: [Int32]
    private let bosId: Int32?

    init(_ bundle: ModelBundle) throws {
        var opened: OpaquePointer?
        try check(forerun_text_open(bundle.pointer, &opened))
        pointer = opened!
        var facts = forerun_text_facts()
        try check(forerun_text_describe(pointer, &facts))
        endIds = Array(UnsafeBufferPointer(start: facts.end_ids, count: Int(facts.end_count)))
        bosId = facts.add_bos != 0 ? facts.bos_id : nil
    }

    deinit { forerun_text_release(pointer) }

    /// Ids of a prompt that is no chat.
    func encodePrompt(_ prompt: String) throws -> [Int32] {
        try (bosId.map { [$0] } ?? []) + encode(Array(prompt.utf8))
    }

    /// Ids of a conversation, up to where the answer begins.
    func encodeChat(_ messages: [Message]) throws -> [Int32] {
        let roles = messages.map { strdup($0.role.rawValue) }
        let contents = messages.map { copyUTF8($0.content) }
        defer {
            roles.forEach { free($0) }
            contents.forEach { $0.deallocate() }
        }
        let listed = messages.indices.map {
            forerun_message(role: roles[$0], content: contents[$0].baseAddress, bytes: contents[$0].count)
        }
        let count = Int32(listed.count)
        var bytes = 0
        try check(forerun_chat_prompt(pointer, listed, count, nil, 0, &bytes))
        var prompt = [CChar](repeating: 0, count: bytes)
        try check(forerun_chat_prompt(pointer, listed, count, &prompt, bytes, &bytes))
        return try encode(prompt.map { UInt8(bitPattern: $0) })
    }

    private func encode(_ utf8: [UInt8]) throws -> [Int32] {
        try utf8.withUnsafeBytes { raw in
            let text = raw.bindMemory(to: CChar.self).baseAddress
            var count = 0
            try check(forerun_encode(pointer, text, utf8.count, nil, 0, &count))
            var ids = [Int32](repeating: 0, count: count)
            try check(forerun_encode(pointer, text, utf8.count, &ids, count, &count))
            return ids
        }
    }
}

/// The bytes of a text, NULs among them, to be deallocated.
private func copyUTF8(_ text: String) -> UnsafeMutableBufferPointer<CChar> {
    let copy = UnsafeMutableBufferPointer<CChar>.allocate(capacity: text.utf8.count)
    _ = copy.initialize(from: text.utf8.lazy.map { CChar(bitPattern: $0) })
    return copy
}

func withOptionalCString<R>(_ text: String?, _ body: (UnsafePointer<CChar>?) throws -> R) rethrows -> R {
    guard let text else { return try body(nil) }
    return try text.withCString { try body($0) }
}
