// Chats with a bundle in the terminal: java -Djava.library.path=FOLDER_OF_LIBFORERUN_JNI -cp … ChatKt BUNDLE
// The conversation is given whole every time; what the session still holds of it is not computed again.
import ai.forerun.Bundle
import ai.forerun.ForerunException
import ai.forerun.Message
import ai.forerun.Options
import ai.forerun.Role
import ai.forerun.Session
import ai.forerun.chat
import kotlinx.coroutines.runBlocking
import java.io.PrintStream
import kotlin.system.exitProcess

private val screen = PrintStream(System.out, true, "UTF-8")

private suspend fun converse(session: Session) {
    val messages = ArrayList<Message>()
    while (true) {
        screen.print("> ")
        val line = readlnOrNull() ?: return
        messages += Message(Role.USER, line)
        val answer = StringBuilder()
        session.chat(messages, Options(maxTokens = 512)).collect { piece ->
            screen.print(piece)
            answer.append(piece)
        }
        screen.println()
        messages += Message(Role.ASSISTANT, answer.toString())
    }
}

fun main(arguments: Array<String>) {
    try {
        Bundle.open(arguments.single()).use { bundle ->
            bundle.session().use { session -> runBlocking { converse(session) } }
        }
    } catch (failure: ForerunException) {
        System.err.println("chat: ${failure.message}")
        exitProcess(1)
    }
}
