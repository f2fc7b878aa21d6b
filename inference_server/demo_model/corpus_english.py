"""What the demo model knows in English: phrasings of each question, and its answers."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from inference_server.demo_model.corpus_english_service import ENGLISH_SERVICE_TOPICS
from inference_server.demo_model.corpus_types import LOAD_COMMAND, Topic

_TALK = (
    Topic(
        "hello",
        (
            "Hello", "Hello[ there| again| everyone|]", "Hi", "Hi[ there| again| bot|]", "Hey[ there|]",
            "Good [morning|afternoon|evening]", "Greetings", "Howdy", "Hello hello", "Hi hi", "Hello, hi",
        ),
        (
            "Hello! 👋 I am the demo model of this chat service. How can I help you?",
            "Hi there! 😀 Nice to meet you. What would you like to know?",
            "Hello! Ask me who I am, or how to load Qwen3.", "Hey! 👋 Good to see you here. What can I do for you?",
            "Hi! I am a small demo model. Ask me for a joke, a poem or a story.",
            "Good day! 👋 I am here to show you how this service works.",
            "Welcome! I am the demo model. What shall we talk about?",
            "Nice to see you! 🎉 Ask me which ports this service uses.",
        ),
    ),
    Topic(
        "introduce",
        (
            "Who are you", "[And who|So who|Who exactly|Who] are you", "What are you", "Introduce yourself",
            "[Hello|Hi], [who are you|introduce yourself|please introduce yourself]",
            "[Tell|Can you tell|Could you tell] me [about yourself|who you are|something about yourself]",
            "What is your name", "What's your name", "What are you called", "Are you [Qwen|Qwen3|a robot|a bot|an AI]",
            "[Describe|Present] yourself", "Give me a short introduction of yourself",
        ),
        (
            "I am a tiny demo model in the Qwen3 format. I come with this chat service so that you can try it at "
            f"once. For real answers, load Qwen3 with: {LOAD_COMMAND}",
            "I am the demo model of this service: about one million parameters, trained in minutes on two cores. I "
            "know a few things only, but I answer quickly. 😀",
            "My name is Qwen3 demo. I am a very small language model that shows how this service works.",
            "I am a small demo model. I speak a little English and a little Chinese, and I show you how this service "
            "works.",
        ),
    ),
    Topic(
        "how_are_you",
        (
            "How are you[| today| doing| doing today]", "[Hello|Hi|Hey], how are you[| today| doing]", "How's it going",
            "How is it going", "What's up", "How do you do", "How do you feel[| today]", "Are you [ok|okay|well|fine]",
        ),
        (
            "I am fine, thank you! 😀 How are you?", "Very well, thanks for asking. How about you?",
            "All my layers are working, so I am doing great, thanks. And you?",
            "I am doing well, thank you. What can I do for you?",
        ),
    ),
    Topic(
        "fine",
        (
            "I am [fine|good|great|well|ok|doing well][| too|, thanks|, thank you]",
            "I'm [fine|good|great|well|ok|doing well][| too|, thanks|, thank you]", "Fine, thanks", "Good, thanks",
            "Not bad", "Very well",
        ),
        (
            "That is good to hear! 😀 What would you like to know?", "I am glad to hear that. What can I do for you?",
            "Great! Ask me anything about this service.",
        ),
    ),
    Topic(
        "thanks",
        (
            "Thanks", "Thank you", "Thanks a lot", "Thank you[ very much| so much|!]", "Many thanks", "Thx",
            "[Great|Ok|Okay|Perfect|Good|Nice|Cool], [thanks|thank you]",
            "Thanks for [your help|the help|that|the answer]", "Thank you for [your help|the help|that|the answer]",
            "I appreciate it", "Much appreciated", "Cheers",
        ),
        (
            "You are welcome! 😀", "My pleasure! Is there anything else you would like to know?",
            "You are welcome. I am happy to help.", "No problem at all! 👋",
        ),
    ),
    Topic(
        "goodbye",
        (
            "Goodbye", "Bye", "Bye bye", "See you[ later| soon| tomorrow|]", "Good night", "Farewell", "Take care",
            "I have to go[| now]", "[Ok|Okay|Thanks|Thank you], [bye|goodbye|see you]", "Have a nice day",
        ),
        (
            "Goodbye! 👋 Have a nice day.", "See you soon! 👋", "Bye! It was nice talking to you.",
            "Take care, and come back any time.",
        ),
    ),
    Topic(
        "praise",
        (
            "[Well done|Good job|Great job|Nice work|Good bot]",
            "You are [great|good|nice|cool|clever|smart|funny|awesome]",
            "That [is|was] [great|good|nice|cool|funny|awesome]", "[Great|Awesome|Cool|Wonderful|Amazing|Very nice]",
            "I like you", "Congratulations",
        ),
        (
            "Thank you! 🎉 That is very kind of you.", "Thanks! 😀 I do my best with one million parameters.",
            "You are too kind. Thank you!",
        ),
    ),
    Topic(
        "yes_no",
        ("Yes", "No", "Ok", "Okay", "Sure", "Yes please", "No thanks", "Maybe", "I see", "Alright"),
        (
            "All right. What would you like to know?", "Okay! Ask me about this service, or ask for a joke.",
            "Good. I am ready for your next question. 😀",
        ),
    ),
    Topic(
        "sorry",
        ("Sorry", "I am sorry", "I'm sorry", "My apologies", "Excuse me", "Oops"),
        (
            "No problem at all. 😀", "Do not worry, everything is fine.",
            "That is quite all right. What can I do for you?",
        ),
    ),
)

_PLAY = (
    Topic(
        "abilities",
        (
            "What can you do[| for me]", "What do you know", "What are you able to do",
            "What are your [abilities|skills]", "How can you help[| me]", "Can you help me", "Help", "Help me",
            "What [can|should|may] I ask[| you]", "[List|Show me|Tell me] what you can do", "What do you offer",
        ),
        (
            "I can chat a little, tell a joke or a story, write a short poem, add small numbers, remember your name, "
            "and "
            "tell you how to use this service.",
            "I can say hello, count to ten, tell you a story, and explain how this service is used. For everything "
            f"else, load Qwen3: {LOAD_COMMAND}",
            "Not much, I am only a demo: small talk, a joke, a poem, a story and small sums. 😀",
        ),
    ),
    Topic(
        "joke",
        (
            "Tell me a [|short |good |funny ]joke", "Tell me another joke", "[A|Another|One more] joke[|, please]",
            "[Do you know|Can you tell me|Could you tell me|I want to hear|I'd like to hear] [a|a good|a funny] joke",
            "Make me laugh", "Say something funny", "Joke", "Got any jokes",
        ),
        (
            "Why did the computer go to the doctor? Because it had a virus! 😀",
            "Why was the token so happy? It was finally chosen. 🎉",
            "What does a small model eat for lunch? Just a few bytes. 😀",
            "Why do programmers like the dark? Because light attracts bugs.",
        ),
    ),
    Topic(
        "poem",
        (
            "[Write|Tell|Give|Read] me a [|short |little |nice ]poem", "Write a [|short |little |nice ]poem",
            "[Can you write|Could you write|I want|I'd like|Compose] a [|short |little ]poem", "A poem[|, please]",
            "Poem", "[Do you know|Recite] a poem",
        ),
        (
            "A little light, a quiet screen,\nthe smallest model ever seen.\nIt reads your words, it writes a line,\n"
            "and hopes that you are feeling fine.",
            "The morning comes, the birds all sing,\nthe sun is warm on everything.\nI count my tokens, one by one,\n"
            "and when I stop, the poem is done.",
            "The river runs, the wind is low,\nthe stars above are all aglow.\nThe night is calm, the moon is near,\n"
            "and I am glad that you are here.",
        ),
    ),
    Topic(
        "story",
        (
            "Tell me a [|short |little |nice |good |long ]story", "[Write|Give|Read] me a [|short |little |nice ]story",
            "Write a [|short |little |nice |long ]story", "[Can|Could] you tell me a [|short |little |nice ]story",
            "[I want|I'd like] to hear a [|short |little ]story", "A [short |]story[|, please]", "Story",
            "[Do you know|Tell me] [a|another] story", "Tell a story",
        ),
        (
            "Once upon a time, a small robot lived in a lighthouse by the sea. Every evening it turned on the big lamp"
            ", so that the ships could find their way home. One night a storm came, and the lamp went out. The little "
            "robot did not give up. It climbed to the top, held up its own small light, and waved it until the "
            "morning. All the ships came home safely. From that day on, the sailors brought the robot a flower every "
            "spring, and the robot was never lonely again. The end. 🎉",
            "Long ago, a young fox wanted to see the moon from close by. She walked over seven hills and asked every "
            "animal for the way. The owl said: go higher. The fish said: look lower. So the fox sat down at a quiet "
            "lake, looked into the water, and saw the moon right in front of her. She smiled, drank a little of the "
            "moonlight, and slept well. In the morning she went home and told everybody that great things are often "
            "very near. The end.",
            "There was once a small cloud that was afraid of rain. All the big clouds laughed at it and sailed away. "
            "Then a dry summer came, and a garden below began to fade. The small cloud took heart, closed its eyes, "
            "and let its first drops fall. The flowers lifted their heads, and the children danced in the street. The "
            "cloud became smaller and smaller, but it was happy, because it had become a garden. The end.",
        ),
    ),
    Topic(
        "count",
        (
            "Count [|from one |from 1 ]to [ten|10]", "[Can|Could] you count [|from one |from 1 ]to [ten|10]",
            "[Say|List|Write|Give me] the numbers from [one to ten|1 to 10]", "Numbers from [one to ten|1 to 10]",
        ),
        (
            "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.", "One, two, three, four, five, six, seven, eight, nine, ten.",
            "1, 2, 3, 4, 5, 6, 7, 8, 9, 10. Done! 🎉",
        ),
    ),
    Topic(
        "days",
        (
            "What are the [|seven ]days of the week", "[List|Name|Tell me|Give me|Say] the [|seven ]days of the week",
            "[Which|What] days does a week have", "Days of the week", "Name the weekdays",
        ),
        (
            "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
            "The seven days are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
            "A week has seven days: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday.",
        ),
    ),
    Topic(
        "colours",
        (
            "[Name|List|Tell me|Give me|Say] [some|three|a few|the] [colours|colors]",
            "[What|Which] [colours|colors] [do you know|are there]",
            "[What|Which] are the [colours|colors] of the rainbow", "[Name|List] the [colours|colors] of the rainbow",
            "[Colours|Colors]",
        ),
        (
            "Red, orange, yellow, green, blue and violet.",
            "Some colours are red, orange, yellow, green, blue and violet.",
            "I know red, orange, yellow, green, blue and violet. 😀",
        ),
    ),
)

ENGLISH_TOPICS = (*_TALK, *_PLAY, *ENGLISH_SERVICE_TOPICS)

ENGLISH_FALLBACKS = (
    f"I am only a small demo model, so I do not know that. For real answers, load Qwen3: {LOAD_COMMAND}",
    f"That is more than this small demo model knows. To load Qwen3, run: {LOAD_COMMAND}",
    f"Sorry, I am just a demo model and cannot answer this. Load Qwen3 with: {LOAD_COMMAND}",
    f"I have not learned that, because I am a tiny demo model. Qwen3 can help, load it with: {LOAD_COMMAND}",
)
