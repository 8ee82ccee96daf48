"""Something to say, in the languages the voices speak: our own sentences, and shuffles of them.

Half of what is drawn are the sentences as written; half are words drawn at random from all of a
language's sentences, which carries every sound into many neighbourhoods.
"""

from __future__ import annotations

import numpy as np

SENTENCES: dict[str, str] = {
    "en": """
Good morning, and thank you for joining us today. The weather will be mostly cloudy, with a little
rain in the evening. Please remember to bring both copies of the paper. My mother baked a big apple
pie for my birthday. We have more than five hundred books about birds and butterflies. People often
believe what they want to believe. Could you move the blue box over by the window? The quick brown
fox jumps over the lazy dog. She sells sea shells by the sea shore. Peter Piper picked a peck of
pickled peppers. How much wood would a woodchuck chuck if a woodchuck could chuck wood? I never said
that he took the money. What a wonderful surprise, I am so happy to see you! Maybe we should leave
before the storm comes. The museum opens at nine and closes at half past five. Every problem has a
simple solution, but simple is not always easy. You know what I mean, right? Well, first of all, let
me explain how this machine works. Beyond the bridge, a small path leads up to the farm. Father
found five very fine feathers. Both of them bumped into the table. Who would have thought that
voices travel so far? Our team improved the program by making it much faster. Pay attention to the
moment when the music stops. Young children laugh about four hundred times a day. The judge asked
whether the witness was sure about the colour of the van. Coffee, tea, milk, or just a glass of
water? Everybody makes mistakes, and most of them can be mended. The voyage took us through fog, ice
and heavy waves. If you are ready, please press the big button now. Thirty three thousand people
watched the match on Thursday. He opened the door, looked around, and shouted. Art is long, and life
is short. Ooh, that looks beautiful! Oh no, I forgot my keys at home again. They plan to build a new
hospital near the river. Memory is the mother of all wisdom. Do not worry about it, we will be fine.
The farmer feeds his sheep, geese and pigs before breakfast. In my opinion, the most important part
of the job is to listen. Numbers one, two, three, four, five, six, seven, eight, nine, ten. She was
wearing a purple velvet jacket and brown boots. Where were you when the lights went out? Place blue
at F two now. Set white with P four please. Bin red by M nine again. Lay green in B zero soon.
""",
    "de": """
Guten Morgen und herzlich willkommen zu unserer Sendung. Das Wetter bleibt morgen meistens bewölkt,
am Abend fällt etwas Regen. Meine Mutter backt jeden Sonntag einen großen Apfelkuchen. Könnten Sie
bitte das Fenster aufmachen? Wir müssen über die Zukunft unserer Städte sprechen. Fischers Fritz
fischt frische Fische. Der Zug nach Hamburg fährt heute von Gleis fünf ab. Ich habe das Buch vor
vielen Jahren schon einmal gelesen. Natürlich ist das nicht ganz so einfach, wie es aussieht. Alle
Kinder spielten im Garten, bis es dunkel wurde. Bitte bringen Sie die Papiere bis Mittwoch zurück.
Die Bundesregierung will mehr Geld für Schulen ausgeben. Was meinen Sie damit? Schöne Grüße an Ihre
Familie. Vor der Brücke biegen Sie links ab, dann immer geradeaus. Übung macht den Meister.
""",
    "fr": """
Bonjour à tous et bienvenue dans notre émission. Demain, le temps sera nuageux avec un peu de pluie
dans la soirée. Ma mère prépare une grande tarte aux pommes. Pouvez-vous ouvrir la fenêtre, s'il
vous plaît ? Nous voulons parler de l'avenir de nos villes. Les enfants ont joué dans le jardin
jusqu'à la nuit. Je n'ai jamais vu une aussi belle lumière sur la mer. Un bon vin blanc, du pain
frais et quelques fromages. Le train pour Bordeaux part à huit heures du matin. Il faut beaucoup de
patience pour apprendre une langue. C'est une histoire vraie que m'a racontée mon voisin. Papa fume
sa pipe au bord du fleuve. Voulez-vous boire un peu d'eau ? Le président a promis plus d'argent pour
les écoles.
""",
    "es": """
Buenos días y bienvenidos a nuestro programa. Mañana el tiempo será nublado con un poco de lluvia
por la tarde. Mi madre prepara una gran tarta de manzana. ¿Puede usted abrir la ventana, por favor?
Los niños jugaron en el jardín hasta la noche. El tren para Barcelona sale a las ocho. Hablamos del
futuro de nuestras ciudades. Me parece que hemos perdido el camino. Un buen libro vale más que mil
palabras. El perro de mi vecino ladra toda la mañana.
""",
    "it": """
Buongiorno a tutti e benvenuti alla nostra trasmissione. Domani il tempo sarà nuvoloso con un po' di
pioggia la sera. Mia madre prepara una grande torta di mele. Può aprire la finestra, per favore? I
bambini hanno giocato nel giardino fino a notte. Il treno per Bologna parte alle otto. Parliamo del
futuro delle nostre città. Un buon libro vale più di mille parole.
""",
    "cmn": """
大家早上好，欢迎收看今天的节目。明天天气多云，晚上有一点小雨。妈妈每个星期天都做苹果蛋糕。
请你把窗户打开，好吗？孩子们在花园里玩到天黑。去北京的火车八点钟出发。我们要谈谈城市的未来。
读一本好书胜过说一千句话。他不知道我们什么时候回家。学习语言需要很多耐心。老板把报表放在桌子上。
朋友们一起爬山，拍了很多漂亮的照片。
""",
    "pt": """
Bom dia a todos e bem-vindos ao nosso programa. Amanhã o tempo vai ficar nublado, com um pouco de
chuva à noite. A minha mãe faz uma grande torta de maçã. As crianças brincaram no jardim até a
noite. O comboio para o Porto parte às oito. Um bom livro vale mais do que mil palavras.
""",
    "nl": """
Goedemorgen en welkom bij ons programma. Morgen is het bewolkt met een beetje regen in de avond.
Mijn moeder bakt elke zondag een grote appeltaart. De kinderen speelden in de tuin tot het donker
werd. De trein naar Utrecht vertrekt om acht uur. Een goed boek zegt meer dan duizend woorden.
""",
    "pl": """
Dzień dobry i witamy w naszym programie. Jutro będzie pochmurno, a wieczorem spadnie trochę deszczu.
Moja mama piecze duże ciasto z jabłkami. Dzieci bawiły się w ogrodzie do zmroku. Pociąg do Krakowa
odjeżdża o ósmej. Dobra książka jest warta więcej niż tysiąc słów.
""",
}


def sentences(language: str) -> list[str]:
    """The sentences of a language, as written."""
    text = SENTENCES[language].replace("\n", " ")
    out, start = [], 0
    for i, mark in enumerate(text):
        if mark in ".?!。？！":
            out.append(text[start : i + 1].strip())
            start = i + 1
    return [s for s in out if s]


def random_text(rng: np.random.Generator, language: str, *, count: int = 1) -> str:
    """``count`` sentences; English for languages without any."""
    pool = sentences(language if language in SENTENCES else "en")
    chosen = []
    for _ in range(count):
        if rng.uniform() < 0.5:
            chosen.append(str(rng.choice(pool)))
        elif language == "cmn":
            marks = "".join(pool)
            letters = [c for c in marks if c not in "，。？！"]
            chosen.append("".join(rng.choice(letters, int(rng.integers(6, 16)))) + "。")
        else:
            words = " ".join(pool).translate(str.maketrans("", "", ".,?!¿")).lower().split()
            picked = list(rng.choice(words, int(rng.integers(4, 13))))
            if len(picked) > 7 and rng.uniform() < 0.5:
                picked[len(picked) // 2] += ","
            chosen.append(" ".join(picked) + str(rng.choice([".", ".", ".", "?", "!"])))
    return " ".join(chosen)
