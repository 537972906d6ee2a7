// What the tests ask of the Kotlin API: ProbeKt TASK BUNDLE, requests on standard input, answers on standard output.
package probe

import ai.forerun.Answer
import ai.forerun.Bundle
import ai.forerun.ForerunException
import ai.forerun.Message
import ai.forerun.Options
import ai.forerun.Role
import ai.forerun.Session
import ai.forerun.Token
import ai.forerun.chat
import ai.forerun.generate
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import java.io.File

private val PROMPT = intArrayOf(5, 6, 7, 8, 5, 6)

private fun hex(text: String): String = text.toByteArray(Charsets.UTF_8).joinToString("") { "%02x".format(it) }

private fun unhex(text: String): String =
    text.chunked(2).map { it.toInt(16).toByte() }.toByteArray().toString(Charsets.UTF_8)

private fun ints(text: String): IntArray = text.split(",").map { it.toInt() }.toIntArray()

private fun List<Token>.ids(): String = mapNotNull { it.id }.joinToString(",")

private fun List<Token>.pieces(): String = joinToString(",") { hex(it.text) }

private fun Answer.read(): List<Token> = use { asSequence().toList() }

private fun requests(): Sequence<List<String>> = generateSequence { readlnOrNull() }.map { it.split("\t") }

private fun report(vararg fields: Any?): Unit = println(fields.joinToString("\t"))

/** drafter, shape, exit, temperature, top_k, top_p, seed, ignore_end, max_tokens, stops in hex, prompt → ids, pieces, counts. */
private fun answers(session: Session) {
    for (field in requests()) {
        val options = Options(
            drafter = field[0],
            shape = field[1].ifEmpty { null },
            exit = field[2].ifEmpty { null },
            temperature = field[3].toDouble(),
            topK = field[4].toInt(),
            topP = field[5].toDouble(),
            seed = field[6].toULong().toLong(),
            ignoreEnd = field[7].toBoolean(),
            maxTokens = field[8].toInt(),
            stop = field[9].split(",").filter { it.isNotEmpty() }.map(::unhex),
        )
        session.rewind(0)
        val answer = session.start(ints(field[10]), options)
        val read = answer.read()
        val counts = session.statistics
        val flowed = runBlocking { session.generate(ints(field[10]), options).toList() }
        check(flowed == read) { "the flow brought $flowed, the iterator $read" }
        report(
            read.ids(), read.pieces(), answer.finish, counts.promptTokens, counts.cachedTokens,
            counts.generatedTokens, counts.verifyCalls, counts.drafted, counts.accepted,
        )
    }
}

/** A text in hex → its ids as they are and as a prompt, the text of these ids, those of a chat. */
private fun texts(bundle: Bundle) {
    for ((given) in requests()) {
        val text = unhex(given)
        val ids = bundle.text.encode(text)
        val chat = bundle.text.encodeChat(listOf(Message(Role.USER, text), Message(Role.ASSISTANT, text)))
        report(ids.joinToString(","), hex(bundle.text.decode(ids)), chat.joinToString(","), bundle.text.endIds)
    }
}

/** Questions, a line each → the answers of a chat, and how much of each prompt was found in the session. */
private fun chats(session: Session) {
    val messages = ArrayList<Message>()
    for ((drafter, question) in requests()) {
        messages += Message(Role.USER, question)
        val pieces = runBlocking { session.chat(messages, Options(maxTokens = 16, drafter = drafter)).toList() }
        messages += Message(Role.ASSISTANT, pieces.joinToString(""))
        report(hex(messages.last().content), session.statistics.promptTokens, session.statistics.cachedTokens)
    }
}

/** Cancels by coroutine and by call; reports tokens made until then, why it ended, and the ids of the next answer. */
private fun cancel(session: Session): Unit = runBlocking {
    val three = CompletableDeferred<Unit>()
    val job = launch {
        var seen = 0
        session.generate(PROMPT, Options(maxTokens = 150, drafter = "none", ignoreEnd = true)).collect {
            seen += 1
            if (seen == 3) {
                three.complete(Unit)
                awaitCancellation()
            }
        }
    }
    three.await()
    job.cancel()
    job.join()
    report(session.statistics.generatedTokens)
    val options = Options(maxTokens = 20, ignoreEnd = true)
    val answer = session.start(PROMPT, options)
    answer.next()
    Thread { answer.cancel() }.apply { start() }.join()
    report(answer.asSequence().count(), answer.finish)
    report(session.start(PROMPT, options).read().ids())
}

/** The error that a call gives, or what it returns instead. */
private fun attempt(name: String, call: () -> Any?) {
    val told = try {
        "returned ${call()}"
    } catch (failure: ForerunException) {
        "ForerunException ${failure.status} ${failure.message}"
    } catch (failure: RuntimeException) {
        "${failure.javaClass.simpleName} ${failure.message}"
    }
    report(name, hex(told))
}

private fun closed(path: String) {
    val bundle = Bundle.open(path)
    val session = bundle.session()
    val answer = session.start(PROMPT)
    attempt("start while an answer is under way") { session.start(PROMPT) }
    attempt("rewind while an answer is under way") { session.rewind(0) }
    answer.close()
    answer.close()
    attempt("step of a closed answer") { answer.step() }
    attempt("start after a closed answer") { session.start(PROMPT).use { it.next().id != null } }
    val ended = session.start(PROMPT, Options(maxTokens = 1, ignoreEnd = true)).also { it.read() }
    attempt("step of an answer that is over") { ended.step() }
    val cut = session.start(PROMPT)
    session.close()
    session.close()
    attempt("step in a closed session") { cut.step() }
    attempt("start in a closed session") { session.start(PROMPT) }
    attempt("length of a closed session") { session.length }
    cut.cancel()
    cut.close()
    val text = bundle.text
    bundle.close()
    bundle.close()
    attempt("session of a closed bundle") { bundle.session() }
    attempt("target of a closed bundle") { bundle.target }
    attempt("text of a closed bundle") { text.encode("a") }
}

private fun mistakes(path: String) {
    attempt("path") { Bundle.open("$path/größe 😀") }
    attempt("NUL") { Bundle.open("$path\u0000/elsewhere") }
    attempt("target") { Bundle.open(path, "moon") }
    Bundle.open(path).use { bundle ->
        attempt("capacity") { bundle.session(capacity = -3) }
        bundle.session(capacity = 32).use { session ->
            attempt("drafter") { session.start(PROMPT, Options(drafter = "psychic")) }
            attempt("empty prompt") { session.start(IntArray(0)) }
            attempt("id") { session.start(intArrayOf(1, 100_000)) }
            attempt("long prompt") { session.start(IntArray(500) { 1 }) }
            attempt("top_p") { session.start(PROMPT, Options(temperature = 1.0, topP = 0.0)) }
            attempt("stop string") { session.start(PROMPT, Options(stop = listOf(""))) }
            attempt("rewind") { session.rewind(1000) }
            attempt("after all that") { session.start(PROMPT, Options(maxTokens = 4, ignoreEnd = true)).read().size }
        }
    }
}

/** Kilobytes of memory in use. */
private fun resident(): Long {
    System.gc()
    return File("/proc/self/statm").readText().split(" ")[1].toLong() * 4
}

private fun cycle(path: String) {
    Bundle.open(path).use { bundle ->
        bundle.session(threads = 2).use { session ->
            val stop = List(40) { "none $it" }
            session.start("ab", Options(maxTokens = 8, drafter = "lookup", stop = stop)).read()
            session.start("ab", Options(stop = stop)).use { it.next() }
        }
    }
}

private fun cycles(path: String) {
    repeat(100) { cycle(path) }
    val before = resident()
    repeat(200) { cycle(path) }
    report(before, resident())
}

/** The same answer by one session, and by two on two threads at once. */
private fun together(bundle: Bundle): Unit = runBlocking {
    val asked = (0 until 8).map { seed ->
        Options(maxTokens = 60, temperature = 1.0, seed = seed.toLong(), drafter = "lookup", ignoreEnd = true)
    }
    val answers = (0 until 2).map {
        async(Dispatchers.Default) {
            bundle.session(threads = 1).use { session -> asked.map { session.start(PROMPT, it).read().ids() } }
        }
    }
    answers.awaitAll().forEach { report(it.joinToString(";")) }
}

private fun tune(session: Session) {
    session.start(PROMPT, Options(maxTokens = 4, drafter = "none", ignoreEnd = true)).read()
    report(session.costs?.rows?.size, session.length)
    val costs = session.tune()
    report(costs.rows.joinToString(","), costs.ms.all { it > 0 }, costs.isWhole, session.length)
    session.costs = ai.forerun.Costs(intArrayOf(1, 4), doubleArrayOf(2.0, 3.0))
    val kept = checkNotNull(session.costs)
    report(kept.rows.joinToString(","), kept.ms.joinToString(","))
    session.rewind(2)
    report(session.length, session.capacity, session.threads)
}

private fun inBundle(path: String, task: (Bundle) -> Unit): Unit = Bundle.open(path).use(task)

private fun inSession(path: String, task: (Session) -> Unit): Unit =
    inBundle(path) { bundle -> bundle.session(threads = 2).use(task) }

fun main(arguments: Array<String>) {
    val (task, path) = arguments
    when (task) {
        "answers" -> inSession(path, ::answers)
        "cancel" -> inSession(path, ::cancel)
        "chats" -> inSession(path, ::chats)
        "closed" -> closed(path)
        "cycles" -> cycles(path)
        "mistakes" -> mistakes(path)
        "texts" -> inBundle(path, ::texts)
        "together" -> inBundle(path, ::together)
        "tune" -> inSession(path, ::tune)
        else -> error("no task is called $task")
    }
}
